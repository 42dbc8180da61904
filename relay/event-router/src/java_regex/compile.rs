//! Turns the syntax tree into instructions for the backtracking machine.

use super::RegexError;
use super::class::Class;
use super::node::{Assertion, Case, Greed, Node, Parsed};

/// Most instructions of an expression. Counted repetitions are written out, so `(a{1000}){1000}` must end somewhere.
const INSTRUCTIONS_MAX: usize = 50_000;

#[derive(Debug, Clone)]
pub(super) enum Instruction {
    Character(char, Case),
    Class(Class, Case),
    Assertion(Assertion),
    LineBreak,
    /// Goes on here and, when that fails, there.
    Split(usize, usize),
    Jump(usize),
    /// Notes the position of a group's start or end.
    Save(usize),
    /// Notes where a round of a repetition begins.
    MarkRound(usize),
    /// Leaves the repetition (to this instruction) when the round took no character.
    LeaveIfEmpty {
        register: usize,
        to: usize,
    },
    BackReference(usize, Case),
    Atomic(Box<Program>),
    LookAhead {
        program: Box<Program>,
        negative: bool,
    },
    /// Starts between the longest and shortest length before the position and must end there.
    LookBehind {
        program: Box<Program>,
        negative: bool,
        shortest: usize,
        longest: usize,
    },
    Accept,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Program {
    pub(super) instructions: Vec<Instruction>,
    pub(super) register_count: usize,
}

pub(super) fn compile(parsed: &Parsed) -> Result<Program, RegexError> {
    compile_node(&parsed.root)
}

fn compile_node(node: &Node) -> Result<Program, RegexError> {
    let mut program = Program::default();
    program.add(node)?;
    program.push(Instruction::Accept)?;
    Ok(program)
}

impl Program {
    fn push(&mut self, instruction: Instruction) -> Result<usize, RegexError> {
        if self.instructions.len() >= INSTRUCTIONS_MAX {
            return Err(RegexError { message: "The expression is too large".to_owned(), index: 0 });
        }
        self.instructions.push(instruction);
        Ok(self.instructions.len() - 1)
    }

    const fn next(&self) -> usize {
        self.instructions.len()
    }

    fn set(&mut self, at: usize, instruction: Instruction) {
        if let Some(slot) = self.instructions.get_mut(at) {
            *slot = instruction;
        }
    }

    fn add(&mut self, node: &Node) -> Result<(), RegexError> {
        match node {
            Node::Empty => {}
            Node::Character(character, case) => {
                self.push(Instruction::Character(*character, *case))?;
            }
            Node::Class(class, case) => {
                self.push(Instruction::Class(class.clone(), *case))?;
            }
            Node::Assertion(assertion) => {
                self.push(Instruction::Assertion(*assertion))?;
            }
            Node::LineBreak => {
                self.push(Instruction::LineBreak)?;
            }
            Node::Concat(nodes) => nodes.iter().try_for_each(|node| self.add(node))?,
            Node::Alternatives(nodes) => self.add_alternatives(nodes)?,
            Node::Group(node, index) => {
                self.push(Instruction::Save(index * 2))?;
                self.add(node)?;
                self.push(Instruction::Save(index * 2 + 1))?;
            }
            Node::Repeat { node, min, max, greed } => self.add_repeat(node, *min, *max, *greed)?,
            Node::BackReference(index, case) => {
                self.push(Instruction::BackReference(*index, *case))?;
            }
            Node::Atomic(node) => {
                let program = Box::new(compile_node(node)?);
                self.push(Instruction::Atomic(program))?;
            }
            Node::Look { node, ahead, negative } => self.add_look(node, *ahead, *negative)?,
        }
        Ok(())
    }

    fn add_alternatives(&mut self, nodes: &[Node]) -> Result<(), RegexError> {
        let mut jumps = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            if index + 1 == nodes.len() {
                self.add(node)?;
                break;
            }
            let split = self.push(Instruction::Split(0, 0))?;
            self.add(node)?;
            jumps.push(self.push(Instruction::Jump(0))?);
            let next = self.next();
            self.set(split, Instruction::Split(split + 1, next));
        }
        let end = self.next();
        for jump in jumps {
            self.set(jump, Instruction::Jump(end));
        }
        Ok(())
    }

    fn add_repeat(
        &mut self,
        node: &Node,
        min: u32,
        max: Option<u32>,
        greed: Greed,
    ) -> Result<(), RegexError> {
        if greed == Greed::Possessive {
            let greedy =
                Node::Repeat { node: Box::new(node.clone()), min, max, greed: Greed::Greedy };
            return self.add(&Node::Atomic(Box::new(greedy)));
        }
        for _ in 0..min {
            self.add(node)?;
        }
        let Some(max) = max else { return self.add_loop(node, greed) };
        let mut splits = Vec::new();
        for _ in min..max {
            splits.push(self.push(Instruction::Split(0, 0))?);
            self.add(node)?;
        }
        let end = self.next();
        for split in splits {
            self.set(split, choice(greed, split + 1, end));
        }
        Ok(())
    }

    fn add_loop(&mut self, node: &Node, greed: Greed) -> Result<(), RegexError> {
        let may_be_empty = node.length().0 == 0;
        let start = self.push(Instruction::Split(0, 0))?;
        let register = self.register_count;
        if may_be_empty {
            self.register_count += 1;
            self.push(Instruction::MarkRound(register))?;
        }
        self.add(node)?;
        let leave = if may_be_empty {
            Some(self.push(Instruction::LeaveIfEmpty { register, to: 0 })?)
        } else {
            None
        };
        self.push(Instruction::Jump(start))?;
        let end = self.next();
        self.set(start, choice(greed, start + 1, end));
        if let Some(leave) = leave {
            self.set(leave, Instruction::LeaveIfEmpty { register, to: end });
        }
        Ok(())
    }

    fn add_look(&mut self, node: &Node, ahead: bool, negative: bool) -> Result<(), RegexError> {
        let program = Box::new(compile_node(node)?);
        if ahead {
            self.push(Instruction::LookAhead { program, negative })?;
            return Ok(());
        }
        let (shortest, longest) = node.length();
        let longest = longest.ok_or_else(|| RegexError {
            message: "Look-behind group does not have an obvious maximum length".to_owned(),
            index: 0,
        })?;
        self.push(Instruction::LookBehind { program, negative, shortest, longest })?;
        Ok(())
    }
}

const fn choice(greed: Greed, inside: usize, outside: usize) -> Instruction {
    match greed {
        Greed::Lazy => Instruction::Split(outside, inside),
        Greed::Greedy | Greed::Possessive => Instruction::Split(inside, outside),
    }
}
