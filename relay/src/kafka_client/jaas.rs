//! `sasl.jaas.config`: a login module and its options, in the form that Java's client reads. Pure.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

use crate::secret::Secret;

/// One login module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Login {
    /// The class.
    pub(super) module: String,
    pub(super) options: BTreeMap<String, Secret>,
}

/// Java's four flags: with one module they make no difference.
const FLAGS: [&str; 4] = ["required", "requisite", "sufficient", "optional"];

/// Reads `Module flag name="value" ... ;`. An error says what is missing, and nothing of the text.
pub(super) fn parse(text: &str) -> Result<Login, &'static str> {
    let mut tokens = Tokens(text.chars().peekable());
    let Some(Token::Word(module)) = tokens.next()? else {
        return Err("it begins with the class of a login module");
    };
    match tokens.next()? {
        Some(Token::Word(flag)) if FLAGS.contains(&flag.to_ascii_lowercase().as_str()) => {}
        _ => return Err("behind the login module comes `required`"),
    }
    let mut options = BTreeMap::new();
    loop {
        match tokens.next()? {
            Some(Token::End) => break,
            Some(Token::Word(name)) => {
                let (Some(Token::Equals), Some(Token::Word(value))) =
                    (tokens.next()?, tokens.next()?)
                else {
                    return Err("an option is not of the form name=\"value\"");
                };
                options.insert(name, Secret::new(value));
            }
            Some(Token::Equals) => return Err("there is a `=` without a name before it"),
            None => return Err("it does not end with `;`"),
        }
    }
    match tokens.next()? {
        None => Ok(Login { module, options }),
        Some(_) => Err("it holds more than one login module"),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Equals,
    End,
}

struct Tokens<'t>(Peekable<Chars<'t>>);

impl Tokens<'_> {
    fn next(&mut self) -> Result<Option<Token>, &'static str> {
        while self.0.next_if(|char| char.is_whitespace()).is_some() {}
        Ok(Some(match self.0.next() {
            None => return Ok(None),
            Some('=') => Token::Equals,
            Some(';') => Token::End,
            Some(quote @ ('"' | '\'')) => Token::Word(self.quoted(quote)?),
            Some(first) => {
                let mut word = String::from(first);
                let ends = |char: &char| char.is_whitespace() || matches!(char, '=' | ';');
                while let Some(char) = self.0.next_if(|char| !ends(char)) {
                    word.push(char);
                }
                Token::Word(word)
            }
        }))
    }

    /// Up to the closing quote; a backslash is for the letters that Java's tokenizer knows, and takes any other as it is.
    fn quoted(&mut self, quote: char) -> Result<String, &'static str> {
        let mut text = String::new();
        loop {
            match self.0.next().ok_or("a quote is not closed")? {
                char if char == quote => return Ok(text),
                '\\' => text.push(match self.0.next().ok_or("a quote is not closed")? {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    other => other,
                }),
                char => text.push(char),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> BTreeMap<String, String> {
        let login = parse(text).unwrap();
        login
            .options
            .iter()
            .map(|(name, value)| (name.clone(), value.expose().to_owned()))
            .collect()
    }

    #[test]
    fn options_are_read_with_quotes_escapes_and_any_space() {
        let login = parse("a.b.Module required username=\"u\" password=\"p\";").unwrap();
        assert_eq!(login.module, "a.b.Module");
        let text = "M required\n  username = 'al ice'\n password=\"a\\\"b;=\\\\\"\tplain=x-1;\n";
        let expected = [("password", "a\"b;=\\"), ("plain", "x-1"), ("username", "al ice")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(options(text), expected.into());
        assert!(options("M REQUIRED;").is_empty());
    }

    #[test]
    fn what_is_malformed_is_told_without_its_text() {
        for text in [
            "",
            ";",
            "M",
            "M username=\"hush\";",
            "M required password=\"hush\"",
            "M required password=\"hush;",
            "M required hush;",
            "M required =\"hush\";",
            "M required a=\"1\"; N required password=\"hush\";",
        ] {
            let problem = parse(text).unwrap_err();
            assert!(!problem.contains("hush"), "{problem}");
        }
    }
}
