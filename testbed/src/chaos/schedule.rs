//! Who is killed when: made of a seed, before anything runs.

use std::fmt;

use super::part::Part;
use super::random::Random;

/// What must have happened since the last one came back before the next blow falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lull {
    /// So many requests were answered or refused: what was killed before may still be starting.
    Attempts(u64),
    /// So many orders were placed: the order side works again.
    Placed(u64),
    /// So many events were handled by the shipment side: everything works again.
    Handled(u64),
}

/// One blow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Strike {
    pub(super) lull: Lull,
    /// One part, or two at once, in the order in which they come back.
    pub(super) parts: Vec<Part>,
    /// Requests that run into what is down, before it comes back.
    pub(super) down: u64,
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.parts.iter().map(Part::to_string).collect();
        write!(f, "{}", parts.join(" and "))
    }
}

/// One in so many blows hits two parts at once.
const DOUBLE_ONE_IN: u64 = 5;

/// A schedule with this many kills of these parts. Each gets its turn before one is hit again: cards of a deck that is
/// shuffled each time it is empty.
pub(super) fn schedule(kills: u32, seed: u64, of: &[Part]) -> Vec<Strike> {
    let mut of = of.to_vec();
    of.sort_unstable();
    of.dedup();
    let mut random = Random::new(seed);
    let mut deck: Vec<Part> = Vec::new();
    let mut strikes = Vec::new();
    let mut left = kills;
    while left > 0 {
        let wanted = if left > 1 && of.len() > 1 && random.one_in(DOUBLE_ONE_IN) { 2 } else { 1 };
        let mut parts = Vec::new();
        while parts.len() < wanted {
            if deck.is_empty() {
                deck.extend(&of);
                random.shuffle(&mut deck);
            }
            // The second card of a pair may be the first one's twin out of the next deck: put off, not thrown away.
            let position = deck.iter().rposition(|part| !parts.contains(part));
            parts.push(deck.remove(position.unwrap_or_default()));
        }
        left -= u32::try_from(parts.len()).unwrap_or(left);
        let lull = match random.between(0, 3) {
            0 => Lull::Attempts(random.between(1, 20)),
            1 => Lull::Placed(random.between(5, 40)),
            _ => Lull::Handled(random.between(5, 40)),
        };
        strikes.push(Strike { lull, parts, down: random.between(0, 15) });
    }
    strikes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kills(strikes: &[Strike]) -> usize {
        strikes.iter().map(|strike| strike.parts.len()).sum()
    }

    #[test]
    fn a_seed_repeats_a_schedule_and_another_gives_another() {
        assert_eq!(schedule(100, 7, &Part::ALL), schedule(100, 7, &Part::ALL));
        assert_ne!(schedule(100, 7, &Part::ALL), schedule(100, 8, &Part::ALL));
    }

    #[test]
    fn every_part_is_killed_equally_often_and_sometimes_two_at_once() {
        for seed in 0..50 {
            let strikes = schedule(60, seed, &Part::ALL);
            assert_eq!(kills(&strikes), 60);
            for part in Part::ALL {
                let times = strikes.iter().filter(|strike| strike.parts.contains(&part)).count();
                assert!((9..=11).contains(&times), "seed {seed}: {part} {times} times");
            }
            let doubles: Vec<_> = strikes.iter().filter(|strike| strike.parts.len() == 2).collect();
            assert!(!doubles.is_empty(), "seed {seed}");
            assert!(doubles.iter().all(|strike| strike.parts[0] != strike.parts[1]));
        }
    }

    #[test]
    fn no_other_part_is_killed_than_those_asked_for() {
        for of in [&[Part::Kafka][..], &[Part::Kafka; 2], &[Part::Relay, Part::MySql]] {
            let strikes = schedule(30, 3, of);
            assert_eq!(kills(&strikes), 30);
            assert!(strikes.iter().flat_map(|strike| &strike.parts).all(|part| of.contains(part)));
            assert!(of.iter().all(|part| strikes.iter().any(|strike| strike.parts.contains(part))));
            assert!(strikes.iter().all(|strike| strike.parts.len() <= of.len()));
        }
    }

    #[test]
    fn a_schedule_has_as_many_kills_as_asked_for() {
        for wanted in 1..20 {
            assert_eq!(kills(&schedule(wanted, 3, &Part::ALL)), wanted as usize);
        }
    }
}
