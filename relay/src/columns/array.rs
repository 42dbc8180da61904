//! PostgreSQL's text form of arrays: `{1,NULL,"a \"b\""}`.

/// The elements of the first level; none for a null and for an array inside of the array.
pub(super) fn parse(text: &str) -> Option<Vec<Option<String>>> {
    // Bounds other than 1 stand in front: `[0:1]={1,2}`.
    let text = if text.starts_with('[') { text.split_once('=')?.1 } else { text };
    let mut rest = text.strip_prefix('{')?.chars().peekable();
    let mut elements = Vec::new();
    if rest.peek() == Some(&'}') {
        return Some(elements);
    }
    loop {
        elements.push(element(&mut rest)?);
        match rest.next()? {
            ',' => {}
            '}' => return rest.next().is_none().then_some(elements),
            _ => return None,
        }
    }
}

fn element(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Option<String>> {
    match rest.peek()? {
        '{' => {
            skip_inner(rest)?;
            Some(None)
        }
        '"' => {
            rest.next();
            quoted(rest).map(Some)
        }
        _ => {
            let mut text = String::new();
            while let Some(next) = rest.next_if(|next| !matches!(next, ',' | '}')) {
                text.push(if next == '\\' { rest.next()? } else { next });
            }
            Some((!text.eq_ignore_ascii_case("null")).then_some(text))
        }
    }
}

fn quoted(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut text = String::new();
    loop {
        match rest.next()? {
            '"' => return Some(text),
            '\\' => text.push(rest.next()?),
            other => text.push(other),
        }
    }
}

fn skip_inner(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<()> {
    let mut depth = 0_usize;
    loop {
        match rest.next()? {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(());
                }
            }
            '"' => {
                quoted(rest)?;
            }
            '\\' => {
                rest.next();
            }
            _ => {}
        }
    }
}
