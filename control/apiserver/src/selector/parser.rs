//! The grammar of `k8s.io/apimachinery/pkg/labels`.

use super::{Requirement, SelectorError, Test};
use crate::kinds::names;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Operator(&'static str),
}

pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let tokens = tokens(text);
    let mut parser = Parser { tokens: &tokens };
    let mut requirements = Vec::new();
    if tokens.is_empty() {
        return Ok(requirements);
    }
    loop {
        requirements.push(parser.requirement()?);
        match parser.next() {
            None => return Ok(requirements),
            Some(Token::Operator(",")) => {}
            found => return Err(unexpected(found, "',' or 'end of string'")),
        }
    }
}

fn tokens(text: &str) -> Vec<Token> {
    const OPERATORS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", "<", ">"];
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(operator) = OPERATORS.iter().find(|o| rest.starts_with(**o)) {
            tokens.push(Token::Operator(operator));
            rest = &rest[operator.len()..];
        } else {
            let end = rest
                .find(|c: char| c.is_whitespace() || "=!(),<>".contains(c))
                .unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    tokens
}

struct Parser<'a> {
    tokens: &'a [Token],
}

impl Parser<'_> {
    fn next(&mut self) -> Option<Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first.clone())
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.first()
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.peek() == Some(&Token::Operator("!")) {
            self.next();
            return Ok(Requirement {
                key: self.key()?,
                test: Test::Absent,
            });
        }
        let key = self.key()?;
        let test = match self.peek() {
            None | Some(Token::Operator(",")) => Test::Exists,
            Some(Token::Operator("=" | "==")) => {
                self.next();
                Test::In(vec![self.value()?])
            }
            Some(Token::Operator("!=")) => {
                self.next();
                Test::NotIn(vec![self.value()?])
            }
            Some(Token::Operator(">")) => {
                self.next();
                Test::Greater(self.number()?)
            }
            Some(Token::Operator("<")) => {
                self.next();
                Test::Less(self.number()?)
            }
            Some(Token::Word(word)) if word == "in" => {
                self.next();
                Test::In(self.values()?)
            }
            Some(Token::Word(word)) if word == "notin" => {
                self.next();
                Test::NotIn(self.values()?)
            }
            found => return Err(unexpected(found.cloned(), "in, notin, =, ==, !=, gt, lt")),
        };
        Ok(Requirement { key, test })
    }

    fn key(&mut self) -> Result<String, SelectorError> {
        match self.next() {
            Some(Token::Word(word)) => match names::qualified(&word).first() {
                None => Ok(word),
                Some(complaint) => Err(SelectorError(format!(
                    "unable to parse requirement: <nil>: Invalid value: \"{word}\": {complaint}"
                ))),
            },
            found => Err(unexpected(found, "!, identifier, or 'end of string'")),
        }
    }

    /// A value may be empty: `key=` and `key=,other`.
    fn value(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            None | Some(Token::Operator(",")) => Ok(String::new()),
            Some(Token::Word(word)) => {
                let word = checked(word)?;
                self.next();
                Ok(word)
            }
            found => Err(unexpected(found.cloned(), "identifier")),
        }
    }

    fn number(&mut self) -> Result<i64, SelectorError> {
        let text = self.value()?;
        text.parse().map_err(|_| {
            SelectorError(format!("unable to parse requirement: values[0]: Invalid value: \"{text}\": for 'Gt', 'Lt' operators, the value must be an integer"))
        })
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.next() {
            Some(Token::Operator("(")) => {}
            found => return Err(unexpected(found, "'('")),
        }
        let mut values = Vec::new();
        loop {
            match self.next() {
                Some(Token::Word(word)) => {
                    values.push(checked(&word)?);
                    match self.next() {
                        Some(Token::Operator(",")) => {}
                        Some(Token::Operator(")")) => return Ok(values),
                        found => return Err(unexpected(found, "',' or ')'")),
                    }
                }
                Some(Token::Operator(")")) => {
                    values.push(String::new());
                    return Ok(values);
                }
                Some(Token::Operator(",")) => values.push(String::new()),
                found => return Err(unexpected(found, "',', ')' or identifier")),
            }
        }
    }
}

fn checked(word: &str) -> Result<String, SelectorError> {
    match names::label_value(word).first() {
        None => Ok(word.to_owned()),
        Some(complaint) => Err(SelectorError(format!(
            "unable to parse requirement: values[0]: Invalid value: \"{word}\": {complaint}"
        ))),
    }
}

fn unexpected(found: Option<Token>, expected: &str) -> SelectorError {
    let found = match found {
        None => String::new(),
        Some(Token::Word(word)) => word,
        Some(Token::Operator(operator)) => operator.to_owned(),
    };
    SelectorError(format!(
        "unable to parse requirement: found '{found}', expected: {expected}"
    ))
}
