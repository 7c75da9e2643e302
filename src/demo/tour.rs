//! The tour: the steps in their order, a line for each as it ends, and the sum.
//!
//! What a step does is its own file's affair; here is what all of them work with, and how
//! what they find is told. A demo is for reading, so what went wrong is kept as text.

use std::error::Error;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::config::units::duration_text;
use crate::demo::client::{Client, Door, Heard};
use crate::demo::stage::{Records, Stage};
use crate::demo::{door_steps, rate_step, slow_step};
use crate::server::Running;
use crate::telemetry::chain;

/// Whether every step did what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every one; or there was nothing to show, because the configuration has it off.
    AsExpected,
    /// At least one did something else.
    Unexpected,
}

/// What a step tried, and what came of it.
#[derive(Debug)]
pub(super) struct Finding {
    tried: String,
    expected: String,
    happened: Happened,
}

/// What came of a step.
#[derive(Debug)]
pub(super) enum Happened {
    /// What should.
    Right(String),
    /// Something else.
    Wrong(String),
    /// Nothing: why there is nothing to show.
    Skipped(String),
}

/// What kept a step from going on.
pub(super) type Trouble = Box<dyn Error + Send + Sync>;

/// Somebody who knows the way in.
#[derive(Debug)]
pub(super) struct Visitor<'a> {
    pub(super) stage: &'a Stage,
    pub(super) door: Door,
    pub(super) origin: Option<String>,
}

/// A session that relays.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) client: Client,
    /// What the edge said when the upstream was there, if it says something.
    pub(super) ready: Option<String>,
}

/// How long a token of the tour is good for: longer than any step, and soon worthless.
const TOKEN_TTL: Duration = Duration::from_secs(60);

/// Plays the tour against the edge, and writes a line for each step as it ends.
///
/// # Errors
/// Those of `out`, and that there is no way in that could be tried.
pub async fn play(
    stage: &Stage,
    running: &Running,
    records: &mut Records,
    out: &mut impl Write,
) -> io::Result<Outcome> {
    let began = Instant::now();
    let door = stage.door(running)?;
    let visitor = Visitor {
        stage,
        origin: stage.origin(door.address.port()),
        door,
    };
    let timeout = stage.route.policy.first_message.as_ref();
    let timeout = timeout.map(|first| first.timeout).unwrap_or_default();
    // The longest wait begins first, and ends behind everything else.
    let silence = door_steps::no_token(visitor.door.clone(), visitor.origin.clone(), timeout);
    let silence = tokio::spawn(silence);

    let mut told = Told {
        out,
        steps: 0,
        wrong: 0,
    };
    told.tell(door_steps::good_token(&visitor).await)?;
    told.tell(door_steps::wrong_origin(&visitor).await)?;
    told.tell(door_steps::forged_token(&visitor).await)?;
    told.tell(door_steps::frame_too_big(&visitor).await)?;
    told.tell(rate_step::rate_exceeded(&visitor, records).await)?;
    told.tell(slow_step::slow_reader(&visitor, records).await)?;
    if !silence.is_finished() {
        let waiting = duration_text(timeout);
        writeln!(
            told.out,
            "           waiting for the token timeout, {waiting} …"
        )?;
    }
    told.tell(silence.await.map_err(io::Error::other)?)?;
    told.sum(began.elapsed())
}

/// What was told so far.
struct Told<'a, W> {
    out: &'a mut W,
    steps: usize,
    wrong: usize,
}

impl<W: Write> Told<'_, W> {
    fn tell(&mut self, finding: Finding) -> io::Result<()> {
        self.steps += 1;
        let Finding {
            tried, expected, ..
        } = finding;
        let (word, happened) = match finding.happened {
            Happened::Right(text) => ("ok", text),
            Happened::Skipped(why) => ("-", why),
            Happened::Wrong(text) => {
                self.wrong += 1;
                ("FAILED", format!("{text}; expected: {expected}"))
            }
        };
        writeln!(
            self.out,
            "{:>2} {word:<7} {tried:<24} {happened}",
            self.steps
        )
    }

    fn sum(&mut self, took: Duration) -> io::Result<Outcome> {
        let took = took.as_secs_f64();
        let steps = self.steps;
        match self.wrong {
            0 => {
                let line = "did what they should";
                writeln!(self.out, "\nAll {steps} steps {line}, in {took:.1} s.")?;
                Ok(Outcome::AsExpected)
            }
            wrong => {
                writeln!(
                    self.out,
                    "\n{wrong} of {steps} steps FAILED, in {took:.1} s."
                )?;
                Ok(Outcome::Unexpected)
            }
        }
    }
}

impl Finding {
    /// What is told of a step that should come to `expected`.
    pub(super) fn new(
        tried: impl Into<String>,
        expected: impl Into<String>,
        happened: Result<Happened, Trouble>,
    ) -> Self {
        Self {
            tried: tried.into(),
            expected: expected.into(),
            happened: happened.unwrap_or_else(|trouble| Happened::Wrong(chain(&*trouble))),
        }
    }
}

impl Visitor<'_> {
    /// A session that has been admitted with a good token, and whose upstream is there.
    pub(super) async fn admitted(&self) -> Result<Admitted, Trouble> {
        let mut client = self.opened().await?;
        let message = self.stage.first_message(&self.stage.token(TOKEN_TTL)?);
        client.say(&message).await?;
        let first = self.stage.route.policy.first_message.as_ref();
        let ready = first.and_then(|first| first.reply.clone());
        if let Some(ready) = &ready {
            expect_message(&mut client, ready).await?;
        }
        // Where the upstream gets the token too, the echo server sends it back.
        if first.is_some_and(|first| first.forward) {
            expect_message(&mut client, &message).await?;
        }
        Ok(Admitted { client, ready })
    }

    /// A session that has said nothing yet.
    pub(super) async fn opened(&self) -> Result<Client, Trouble> {
        Ok(Client::open(&self.door, self.origin.as_deref()).await?)
    }

    /// A first message that would be good, if its signature were.
    pub(super) fn forged_message(&self) -> Result<String, Trouble> {
        let token = self.stage.token(TOKEN_TTL)?;
        let (signed, signature) = token.rsplit_once('.').ok_or("the token has no signature")?;
        let first = if signature.starts_with('A') { 'B' } else { 'A' };
        let rest: String = signature.chars().skip(1).collect();
        Ok(self.stage.first_message(&format!("{signed}.{first}{rest}")))
    }
}

/// Hears a message that must be this one.
pub(super) async fn expect_message(client: &mut Client, text: &str) -> Result<(), Trouble> {
    match client.hear().await? {
        Heard::Message(message) if message == text => Ok(()),
        other => Err(told(&other).into()),
    }
}

/// Hears how the session ends, and whether it is with this code.
pub(super) async fn closed_with(
    client: &mut Client,
    code: u16,
    within: Duration,
) -> Result<Happened, Trouble> {
    let heard = client.hear_within(within).await?;
    let text = told(&heard);
    if !matches!(&heard, Heard::Closed(Some(found), _) if *found == code) {
        return Ok(Happened::Wrong(text));
    }
    // The answer goes out, and the edge ends the connection.
    match client.hear().await {
        Ok(Heard::Gone) => Ok(Happened::Right(text)),
        _ => Ok(Happened::Wrong(format!("{text}, but the connection stays"))),
    }
}

/// What was heard, in words.
pub(super) fn told(heard: &Heard) -> String {
    match heard {
        Heard::Message(message) => format!("a message of {} bytes", message.len()),
        Heard::Pong => "a pong".to_owned(),
        Heard::Closed(Some(code), reason) if reason.is_empty() => format!("closed with {code}"),
        Heard::Closed(Some(code), reason) => format!("closed with {code}, \"{reason}\""),
        Heard::Closed(None, _) => "closed without a code".to_owned(),
        Heard::Gone => "the connection ended without a Close".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::client::ClientError;

    fn told(happened: Vec<Happened>) -> (String, Outcome) {
        let mut out = Vec::new();
        let mut told = Told {
            out: &mut out,
            steps: 0,
            wrong: 0,
        };
        for happened in happened {
            let finding = Finding::new("a step", "this", Ok(happened));
            told.tell(finding).expect("written");
        }
        let outcome = told.sum(Duration::from_millis(1500)).expect("written");
        (String::from_utf8(out).expect("text"), outcome)
    }

    #[test]
    fn one_wrong_step_is_enough_to_fail() {
        let right = || Happened::Right("this".to_owned());
        let (text, outcome) = told(vec![right(), Happened::Wrong("that".to_owned()), right()]);
        assert_eq!(outcome, Outcome::Unexpected);
        assert_eq!(
            text,
            " 1 ok      a step                   this\n \
             2 FAILED  a step                   that; expected: this\n \
             3 ok      a step                   this\n\n\
             1 of 3 steps FAILED, in 1.5 s.\n"
        );
    }

    #[test]
    fn what_there_is_nothing_of_to_show_is_no_failure() {
        let skipped = Happened::Skipped("it is off".to_owned());
        let (text, outcome) = told(vec![skipped]);
        assert_eq!(outcome, Outcome::AsExpected);
        assert!(
            text.starts_with(" 1 -       a step                   it is off\n"),
            "{text}"
        );
    }

    #[test]
    fn trouble_is_a_failure_with_its_causes() {
        let cause = io::Error::other("the cause");
        let finding = Finding::new("a step", "this", Err(ClientError::from(cause).into()));
        assert!(matches!(&finding.happened, Happened::Wrong(text)
                if text == "the connection failed: the cause"));
    }
}
