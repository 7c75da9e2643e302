//! The arguments, and the help that teaches them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::Value;

use crate::config::units;

/// A secure WebSocket reverse proxy.
///
/// Terminates TLS, admits by Origin and by a JWT, holds every
/// connection to its limits, and relays frames to an unmodified WebSocket server.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Args {
    /// How log lines are written to the standard error.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// The least severe lines that are written; by default `info`, and `warn` for `demo`.
    /// `info` has one line for each session's end; `debug` adds why connections never became
    /// sessions.
    #[arg(long, global = true, value_enum)]
    pub log_level: Option<LogLevel>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tidegate demo                        see it work, with nothing but this program
  tidegate check --config proxy.toml   every problem of a configuration, at once
  tidegate run --config proxy.toml     serve";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows the edge at work: a tour by real clients, then it stays up to be tried.
    ///
    /// Needs nothing but this program and a configuration: it brings its own upstream, makes
    /// a development certificate where the files are not there yet, and a secret where the
    /// environment has none. What should happen at each step is read from the configuration.
    #[command(after_help = "\
Examples:
  tidegate demo                        serve proxy.toml as it stands, on its own ports
  tidegate demo --any-port             the same, where those are taken
  tidegate demo --once                 end after the tour

Exit status: 0 when every step did what it should; 1 when one did not, or an address cannot
be listened on; 78 when the configuration is refused, or has nothing to show.")]
    Demo(DemoRequest),
    /// Serves until SIGTERM or SIGINT.
    ///
    /// Then it drains: at SIGTERM it is first not ready for `server.drain.lame_duck`; then it
    /// stops accepting, closes every session with 1012 at a message boundary, evenly over `spread`,
    /// and exits with 0 at the latest after `grace`. A second signal exits at once with 1. At
    /// SIGUSR2 it starts this program anew, hands the listening sockets over, and drains once
    /// the new process serves. Listening sockets of a service manager (LISTEN_FDS) are used.
    #[command(after_help = "\
Example:
  TIDEGATE_JWT_SECRET=$(openssl rand -hex 32) tidegate run --config proxy.toml

Exit status: 0 after a drain, 1 when an address cannot be listened on, 78 when the
configuration is refused.")]
    Run(RunRequest),
    /// Replaces the running process by a new one, of the program as it is now, without a gap.
    ///
    /// Asks at the admin address of the configuration. The new process takes the listening
    /// sockets over, and when it serves the old one drains. If it cannot serve, the old one goes
    /// on, and this says why. Without `[admin]` send the process SIGUSR2.
    #[command(after_help = "\
Example:
  install -m 755 tidegate.new /usr/local/bin/tidegate && tidegate upgrade --config proxy.toml

Exit status: 0 when the new process serves, 1 when the old one goes on, 78 when the
configuration is refused or has no [admin].")]
    Upgrade {
        /// The configuration file.
        #[arg(long, default_value = "proxy.toml")]
        config: PathBuf,
    },
    /// Says whether a configuration would start, and everything that is wrong with it.
    ///
    /// Loads what the file names: certificates must match their keys, key files must be
    /// readable, secrets present. Problems and warnings go to the standard error.
    #[command(after_help = "\
Example:
  tidegate check --config proxy.toml

Exit status: 0 when it would start, with or without warnings; 78 when not.")]
    Check {
        /// The configuration file.
        #[arg(long, default_value = "proxy.toml")]
        config: PathBuf,
    },
    /// Makes a token that a route accepts, for trying things out.
    ///
    /// It is signed with the route's own key where that can sign (HMAC), and else with the
    /// private key given. It is printed to the standard output, alone on its line.
    #[command(after_help = "\
Examples:
  tidegate token --route chat --sub alice --ttl 60s
  tidegate token --route chat --sub alice --claim role=admin --claim 'rooms=[\"a\",\"b\"]'
  tidegate token --route feed --sub alice --signing-key private.pem")]
    Token(TokenRequest),
}

/// `run`.
#[derive(Debug, clap::Args)]
pub struct RunRequest {
    /// The configuration file.
    #[arg(long, default_value = "proxy.toml")]
    pub config: PathBuf,
    /// The process that starts this one hands its sockets over on the standard input.
    #[arg(long, hide = true)]
    pub take_over: bool,
}

/// What a process adds to its own arguments when it starts the one that takes its place.
pub const TAKE_OVER: &str = "--take-over";

/// `demo`.
#[derive(Debug, clap::Args)]
pub struct DemoRequest {
    /// The configuration file.
    #[arg(long, default_value = "proxy.toml")]
    pub config: PathBuf,
    /// End after the tour.
    #[arg(long)]
    pub once: bool,
    /// Listen on free ports of 127.0.0.1 in place of those of the configuration.
    #[arg(long)]
    pub any_port: bool,
}

/// `token`.
#[derive(Debug, clap::Args)]
pub struct TokenRequest {
    /// The configuration file.
    #[arg(long, default_value = "proxy.toml")]
    pub config: PathBuf,
    /// The route that is to accept the token.
    #[arg(long)]
    pub route: String,
    /// The claim `sub`.
    #[arg(long)]
    pub sub: Option<String>,
    /// How long the token is good for: a number with `ms`, `s`, `m`, `h` or `d`.
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub ttl: Duration,
    /// A further claim; may be given several times. The value is JSON where it reads as
    /// JSON, and else text.
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    pub claims: Vec<(String, Value)>,
    /// The private key (PKCS#8 PEM), for routes that verify with a public one.
    #[arg(long, value_name = "FILE")]
    pub signing_key: Option<PathBuf>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The least severe lines that are written.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

fn duration(text: &str) -> Result<Duration, units::UnitError> {
    units::duration(text)
}

fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("a claim is NAME=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_claim_is_json_where_it_reads_as_json() {
        assert_eq!(claim("n=1"), Ok(("n".to_owned(), Value::from(1))));
        assert_eq!(claim("s=a=b"), Ok(("s".to_owned(), Value::from("a=b"))));
        assert_eq!(
            claim(r#"l=["x"]"#),
            Ok(("l".to_owned(), Value::from(vec!["x"])))
        );
        assert!(claim("nothing").is_err());
        assert!(claim("=x").is_err());
    }
}
