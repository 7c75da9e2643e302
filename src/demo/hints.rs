//! What is said before the tour, and after it: lines to try the edge with other clients.

use std::io::{self, Write};
use std::time::Duration;

use crate::config::units::duration_text;
use crate::demo::stage::Stage;
use crate::server::Running;

/// How long the printed token is good for: time to try things out.
const TOKEN_TTL: Duration = Duration::from_secs(15 * 60);

/// Writes where the edge serves, and what was made for that.
///
/// # Errors
/// Those of `out`.
pub fn welcome(stage: &Stage, running: &Running, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "Tidegate serves {}, with", stage.door(running)?.url())?;
    for made in &stage.made {
        writeln!(out, "  {made}")?;
    }
    writeln!(out)
}

/// Writes the URL, a token and lines for other clients.
///
/// # Errors
/// Those of `out`, and that there is no token.
pub fn farewell(stage: &Stage, running: &Running, out: &mut impl Write) -> io::Result<()> {
    let door = stage.door(running)?;
    let (url, host) = (door.url(), door.authority());
    let token = stage.token(TOKEN_TTL).map_err(io::Error::other)?;
    let message = stage.first_message(&token);
    let origin = stage.origin(door.address.port());
    let option = |name: &str, quote: &str| match &origin {
        Some(origin) => format!(" {name}{origin}{quote}"),
        None => String::new(),
    };
    let good_for = duration_text(TOKEN_TTL);
    write!(
        out,
        "\nIt stays up until Ctrl-C. To try it with other clients:\n\
         \n  URL    {url}\
         \n  token  {token}\
         \n\nThe first message has to be this one; the token is good for {good_for}:\n\
         \n  {message}\n\
         \nIn a terminal, then paste the message above:\n\
         \n  npx wscat --no-check{} -c {url}\
         \n  websocat -k{} {url}\n",
        option("--origin ", ""),
        option("-H='Origin: ", "'"),
    )?;
    let page = format!("https://{host}");
    if origin.as_deref() == Some(&page) {
        write!(
            out,
            "\nIn a browser, open {page}/, accept the certificate, and paste into the console:\n\
             \n  ws = new WebSocket('{url}'); ws.onmessage = e => console.log(e.data);\
             \n  ws.onopen = () => ws.send({})\n\
             \nand once it is open:  ws.send('hello')\n",
            quoted(&message)
        )?;
    } else {
        writeln!(
            out,
            "\nA browser gets in from the origins of the route {:?}, and {page} is none of them.",
            stage.route.name
        )?;
    }
    writeln!(out)
}

/// A string literal of JavaScript.
fn quoted(text: &str) -> String {
    match text.contains(['\'', '\\', '\n']) {
        false => format!("'{text}'"),
        true => serde_json::Value::from(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_quoted_for_the_console() {
        assert_eq!(quoted(r#"{"a":"b"}"#), r#"'{"a":"b"}'"#);
        assert_eq!(quoted(r#"{"it's":1}"#), r#""{\"it's\":1}""#);
    }
}
