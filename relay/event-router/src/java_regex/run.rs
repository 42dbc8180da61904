//! The backtracking machine.

use super::TooManySteps;
use super::class::is_line_terminator;
use super::compile::{Instruction, Program};
use super::node::{Assertion, Case};

/// Most steps of one match. An ordinary expression takes a few per character of the text.
const STEPS_MAX: u32 = 2_000_000;

/// A text by characters.
pub(super) struct Input {
    characters: Vec<char>,
    offsets: Vec<usize>,
}

/// Group positions, in characters: start and end of group 0, of group 1, and so on.
pub(super) type Slots = Vec<Option<usize>>;

impl Input {
    pub(super) fn new(text: &str) -> Self {
        let characters = text.chars().collect();
        let offsets = text.char_indices().map(|(offset, _)| offset).chain([text.len()]).collect();
        Self { characters, offsets }
    }

    pub(super) const fn len(&self) -> usize {
        self.characters.len()
    }

    /// Byte offset of a character.
    pub(super) fn offset(&self, index: usize) -> usize {
        self.offsets.get(index).copied().unwrap_or_default()
    }

    fn at(&self, index: usize) -> Option<char> {
        self.characters.get(index).copied()
    }
}

/// Runs a program from a position; with `to_end` only a match up to the end counts.
pub(super) fn run(
    program: &Program,
    input: &Input,
    start: usize,
    to_end: bool,
    group_count: usize,
) -> Result<Option<Slots>, TooManySteps> {
    let mut machine = Machine { input, steps_left: STEPS_MAX };
    let slots = vec![None; (group_count + 1) * 2];
    let must_end = to_end.then_some(input.len());
    let Some((end, mut slots)) = machine.run(program, start, must_end, slots)? else {
        return Ok(None);
    };
    if let [first, second, ..] = slots.as_mut_slice() {
        *first = Some(start);
        *second = Some(end);
    }
    Ok(Some(slots))
}

/// What to do when the present path fails.
enum Resume {
    Branch { instruction: usize, position: usize },
    Slot { index: usize, value: Option<usize> },
    Register { index: usize, value: usize },
}

struct Machine<'i> {
    input: &'i Input,
    steps_left: u32,
}

/// One run of a program, with its own stack.
struct Thread {
    instruction: usize,
    position: usize,
    slots: Slots,
    registers: Vec<usize>,
    stack: Vec<Resume>,
}

impl Thread {
    /// Goes back to the last choice; false when there is none.
    fn backtrack(&mut self) -> bool {
        while let Some(resume) = self.stack.pop() {
            match resume {
                Resume::Branch { instruction, position } => {
                    self.instruction = instruction;
                    self.position = position;
                    return true;
                }
                Resume::Slot { index, value } => {
                    if let Some(slot) = self.slots.get_mut(index) {
                        *slot = value;
                    }
                }
                Resume::Register { index, value } => {
                    if let Some(register) = self.registers.get_mut(index) {
                        *register = value;
                    }
                }
            }
        }
        false
    }

    fn save(&mut self, index: usize, value: Option<usize>) {
        if let Some(slot) = self.slots.get_mut(index) {
            self.stack.push(Resume::Slot { index, value: *slot });
            *slot = value;
        }
    }

    fn save_all(&mut self, slots: &Slots) {
        for (index, value) in slots.iter().enumerate() {
            if self.slots.get(index) != Some(value) {
                self.save(index, *value);
            }
        }
    }
}

impl Machine<'_> {
    fn run(
        &mut self,
        program: &Program,
        start: usize,
        must_end: Option<usize>,
        slots: Slots,
    ) -> Result<Option<(usize, Slots)>, TooManySteps> {
        let mut thread = Thread {
            instruction: 0,
            position: start,
            slots,
            registers: vec![usize::MAX; program.register_count],
            stack: Vec::new(),
        };
        loop {
            self.steps_left = self.steps_left.checked_sub(1).ok_or(TooManySteps)?;
            let Some(instruction) = program.instructions.get(thread.instruction) else {
                return Ok(None);
            };
            let goes_on = match instruction {
                Instruction::Accept if must_end.is_none_or(|end| end == thread.position) => {
                    return Ok(Some((thread.position, thread.slots)));
                }
                Instruction::Accept => false,
                other => self.step(other, &mut thread)?,
            };
            if !goes_on && !thread.backtrack() {
                return Ok(None);
            }
        }
    }

    /// Does one instruction; false when it fails.
    fn step(
        &mut self,
        instruction: &Instruction,
        thread: &mut Thread,
    ) -> Result<bool, TooManySteps> {
        let position = thread.position;
        let taken = match instruction {
            Instruction::Character(expected, case) => {
                self.input.at(position).filter(|found| same(*expected, *found, *case)).map(|_| 1)
            }
            Instruction::Class(class, case) => self
                .input
                .at(position)
                .filter(|found| any_case(*found, *case, |variant| class.contains(variant)))
                .map(|_| 1),
            Instruction::Assertion(assertion) => self.holds(*assertion, position).then_some(0),
            Instruction::LineBreak => self.line_break(position),
            Instruction::BackReference(group, case) => self.repeated(thread, *group, *case),
            _ => return self.steer(instruction, thread),
        };
        let Some(taken) = taken else { return Ok(false) };
        thread.position += taken;
        thread.instruction += 1;
        Ok(true)
    }

    /// Instructions that take no character themselves.
    fn steer(
        &mut self,
        instruction: &Instruction,
        thread: &mut Thread,
    ) -> Result<bool, TooManySteps> {
        let position = thread.position;
        match instruction {
            Instruction::Split(first, second) => {
                thread.stack.push(Resume::Branch { instruction: *second, position });
                thread.instruction = *first;
                return Ok(true);
            }
            Instruction::Jump(to) => {
                thread.instruction = *to;
                return Ok(true);
            }
            Instruction::LeaveIfEmpty { register, to } => {
                let empty = thread.registers.get(*register) == Some(&position);
                thread.instruction = if empty { *to } else { thread.instruction + 1 };
                return Ok(true);
            }
            Instruction::Save(index) => thread.save(*index, Some(position)),
            Instruction::MarkRound(index) => {
                if let Some(register) = thread.registers.get_mut(*index) {
                    thread.stack.push(Resume::Register { index: *index, value: *register });
                    *register = position;
                }
            }
            Instruction::Atomic(program) => {
                let Some((end, slots)) = self.run(program, position, None, thread.slots.clone())?
                else {
                    return Ok(false);
                };
                thread.save_all(&slots);
                thread.position = end;
            }
            Instruction::LookAhead { program, negative } => {
                let found = self.run(program, position, None, thread.slots.clone())?;
                if !look(found, *negative, thread) {
                    return Ok(false);
                }
            }
            Instruction::LookBehind { program, negative, shortest, longest } => {
                let found = self.look_behind(program, thread, *shortest, *longest)?;
                if !look(found, *negative, thread) {
                    return Ok(false);
                }
            }
            _ => return Ok(false),
        }
        thread.instruction += 1;
        Ok(true)
    }

    fn look_behind(
        &mut self,
        program: &Program,
        thread: &Thread,
        shortest: usize,
        longest: usize,
    ) -> Result<Option<(usize, Slots)>, TooManySteps> {
        let position = thread.position;
        let first = position.saturating_sub(longest);
        let Some(last) = position.checked_sub(shortest) else { return Ok(None) };
        for start in (first..=last).rev() {
            let found = self.run(program, start, Some(position), thread.slots.clone())?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn holds(&self, assertion: Assertion, position: usize) -> bool {
        let length = self.input.len();
        let before = position.checked_sub(1).and_then(|index| self.input.at(index));
        let here = self.input.at(position);
        let inside_crlf = before == Some('\r') && here == Some('\n');
        match assertion {
            Assertion::InputStart => position == 0,
            Assertion::InputEnd => position == length,
            Assertion::InputEndBeforeTerminator => {
                let terminator = match length - position {
                    0 => true,
                    1 => here.is_some_and(is_line_terminator) && !inside_crlf,
                    2 => here == Some('\r') && self.input.at(position + 1) == Some('\n'),
                    _ => false,
                };
                position <= length && terminator
            }
            Assertion::LineStart => {
                position == 0
                    || (position < length && before.is_some_and(is_line_terminator) && !inside_crlf)
            }
            Assertion::LineEnd => {
                position == length || (here.is_some_and(is_line_terminator) && !inside_crlf)
            }
            Assertion::WordBoundary => is_word(before) != is_word(here),
            Assertion::NotWordBoundary => is_word(before) == is_word(here),
        }
    }

    fn line_break(&self, position: usize) -> Option<usize> {
        match (self.input.at(position)?, self.input.at(position + 1)) {
            ('\r', Some('\n')) => Some(2),
            ('\n'..='\r' | '\u{85}' | '\u{2028}' | '\u{2029}', _) => Some(1),
            _ => None,
        }
    }

    /// Length of a group's text where it occurs again at the position.
    fn repeated(&mut self, thread: &Thread, group: usize, case: Case) -> Option<usize> {
        let start = thread.slots.get(group * 2).copied().flatten()?;
        let end = thread.slots.get(group * 2 + 1).copied().flatten()?;
        let length = end.checked_sub(start)?;
        let same_text = (0..length).all(|index| {
            let pair = self.input.at(start + index).zip(self.input.at(thread.position + index));
            pair.is_some_and(|(expected, found)| same(expected, found, case))
        });
        let cost = u32::try_from(length).unwrap_or(u32::MAX);
        self.steps_left = self.steps_left.saturating_sub(cost);
        same_text.then_some(length)
    }
}

fn look(found: Option<(usize, Slots)>, negative: bool, thread: &mut Thread) -> bool {
    match found {
        Some((_, slots)) if !negative => {
            thread.save_all(&slots);
            true
        }
        found => found.is_none() == negative,
    }
}

fn is_word(character: Option<char>) -> bool {
    character.is_some_and(|character| character.is_alphanumeric() || character == '_')
}

fn same(expected: char, found: char, case: Case) -> bool {
    expected == found
        || match case {
            Case::Exact => false,
            Case::IgnoreAscii => expected.eq_ignore_ascii_case(&found),
            Case::IgnoreUnicode => fold(expected) == fold(found),
        }
}

/// Java's comparison: the lower case of the upper case, each of one character.
fn fold(character: char) -> char {
    let upper = one(character.to_uppercase()).unwrap_or(character);
    one(upper.to_lowercase()).unwrap_or(upper)
}

fn one(mut characters: impl Iterator<Item = char>) -> Option<char> {
    let first = characters.next();
    if characters.next().is_some() { None } else { first }
}

fn any_case(character: char, case: Case, test: impl Fn(char) -> bool) -> bool {
    test(character)
        || match case {
            Case::Exact => false,
            Case::IgnoreAscii => {
                test(character.to_ascii_lowercase()) || test(character.to_ascii_uppercase())
            }
            Case::IgnoreUnicode => {
                let upper = one(character.to_uppercase()).unwrap_or(character);
                test(upper) || test(fold(character))
            }
        }
}
