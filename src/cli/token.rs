//! `tidegate token`.

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use super::args::TokenRequest;
use super::{CONFIG, USAGE, env, report, say};
use crate::auth::mint::{MintError, MintRequest, mint};
use crate::config::problem::Loaded;
use crate::config::{self, Auth, Keys, Route};
use crate::telemetry::chain;

/// Prints a token that the route accepts.
pub fn token(request: &TokenRequest) -> ExitCode {
    let file: &Path = &request.config;
    let Loaded { config, text, .. } = match config::load(file) {
        Ok(loaded) => loaded,
        Err(refused) => {
            report(file, &refused.problems, &refused.text);
            return ExitCode::from(CONFIG);
        }
    };
    let named = config.routes.iter().find(|r| r.name == request.route);
    let Some(route) = named else {
        let names: Vec<&str> = config.routes.iter().map(|r| r.name.as_str()).collect();
        say(&format!(
            "error: no route {:?} in {}\n  allowed: {}\n",
            request.route,
            file.display(),
            names.join(", ")
        ));
        return ExitCode::from(USAGE);
    };
    match minted(route, request) {
        Ok(token) => {
            println!("{token}");
            ExitCode::SUCCESS
        }
        Err(Refusal::NoToken) => {
            say(&format!(
                "error: route {:?} asks for no token: its auth.method is \"none\"\n",
                route.name
            ));
            ExitCode::from(USAGE)
        }
        Err(Refusal::Mint(MintError::Key(problems))) => {
            report(file, &problems, &text);
            ExitCode::from(CONFIG)
        }
        Err(Refusal::Mint(error)) => {
            say(&format!("error: {}\n", chain(&error)));
            ExitCode::FAILURE
        }
    }
}

enum Refusal {
    NoToken,
    Mint(MintError),
}

fn minted(route: &Route, request: &TokenRequest) -> Result<String, Refusal> {
    let Auth::Token(auth) = &route.auth else {
        return Err(Refusal::NoToken);
    };
    // Of several issuers the first whose key may be at hand.
    let has_key = |jwt: &&config::Jwt| matches!(jwt.keys, Keys::One(_));
    let jwt = auth.jwt.iter().find(has_key).or(auth.jwt.first());
    let jwt = jwt.ok_or(Refusal::NoToken)?;
    let asked = MintRequest {
        subject: request.sub.clone(),
        ttl: request.ttl,
        claims: request.claims.clone(),
        signing_key: request.signing_key.clone(),
    };
    mint(jwt, &env, &asked, SystemTime::now()).map_err(Refusal::Mint)
}
