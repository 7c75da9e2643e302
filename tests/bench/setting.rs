//! What all proxies share in one run of the bench: certificate, keys, tokens, configurations.
//!
//! Owns the folder with these files, which is removed at the end; configurations are filled in from
//! the templates beside this file. It knows nothing of processes.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

use crate::proxies::Kind;
use crate::rows::{Algorithm, Variant};

/// Where a proxy listens on 127.0.0.1.
pub struct Ports {
    /// With TLS.
    pub tls: u16,
    /// In clear.
    pub plain: u16,
}

/// What all proxies share in one run of the bench.
pub struct Setting {
    /// Where all files are.
    pub folder: PathBuf,
    upstream_port: u16,
    /// What rivals are told to expect that want a number: as many as open files allow.
    connections: usize,
    /// Of HS256.
    pub secret: String,
    /// What a client of Tidegate says first, by the algorithm of its token.
    first_messages: [(Algorithm, String); 2],
}

impl Setting {
    /// Makes the certificate, the keys and the tokens.
    pub fn prepare(upstream_port: u16, connections: usize) -> io::Result<Self> {
        let secret = secret()?;
        let pair = rcgen::KeyPair::generate().map_err(io::Error::other)?;
        let hs256 = token(
            &Header::default(),
            &EncodingKey::from_secret(secret.as_bytes()),
        )?;
        let ec_key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes());
        let es256 = Header::new(jsonwebtoken::Algorithm::ES256);
        let es256 = token(&es256, &ec_key.map_err(io::Error::other)?)?;
        let message = |token| json!({ "token": token }).to_string();
        remove_leftovers();
        let folder = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        // It holds private keys.
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let setting = Self {
            upstream_port,
            connections,
            first_messages: [
                (Algorithm::Hs256, message(hs256)),
                (Algorithm::Es256, message(es256)),
            ],
            secret,
            folder,
        };
        fs::write(setting.folder.join("es256.pem"), pair.public_key_pem())?;
        setting.write_certificate()?;
        Ok(setting)
    }

    /// What a client of Tidegate says first.
    pub fn first_message(&self, algorithm: Algorithm) -> String {
        let mut messages = self.first_messages.iter();
        let found = messages.find(|(of, _)| *of == algorithm);
        found
            .map(|(_, message)| message.clone())
            .unwrap_or_default()
    }

    /// PEM file of the certificate every proxy shows.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("cert.pem")
    }

    /// rcgen's default key is ECDSA P-256, what public authorities issue by default.
    fn write_certificate(&self) -> io::Result<()> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        let made = made.map_err(io::Error::other)?;
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        fs::write(self.certificate(), &certificate)?;
        fs::write(self.folder.join("key.pem"), &key)?;
        // HAProxy wants both in one file.
        fs::write(self.folder.join("both.pem"), certificate + &key)
    }

    /// Fills the template in; the answer is the file.
    pub fn write_configuration(
        &self,
        kind: Kind,
        ports: &Ports,
        variant: Variant,
    ) -> io::Result<String> {
        let folder = self.folder.to_string_lossy();
        let (algorithm, key) = match variant.algorithm {
            Algorithm::Hs256 => ("HS256", r#"{ env = "TIDEGATE_JWT_SECRET" }"#.to_owned()),
            Algorithm::Es256 => ("ES256", format!(r#"{{ file = "{folder}/es256.pem" }}"#)),
        };
        let (name, template) = kind.template();
        let text = template
            .replace("@PORT@", &ports.tls.to_string())
            .replace("@PLAIN@", &ports.plain.to_string())
            .replace("@UPSTREAM@", &self.upstream_port.to_string())
            .replace("@DIR@", &folder)
            .replace("@ALGORITHM@", algorithm)
            .replace("@KEY@", &key)
            .replace("@BUFFER@", kind.buffer(variant.buffers))
            .replace("@CONNECTIONS@", &self.connections.to_string())
            .replace("@SOCKETS@", &(2 * self.connections + 100).to_string());
        let file = self.folder.join(name);
        fs::write(&file, text)?;
        Ok(file.to_string_lossy().into_owned())
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        // Left over files in the temporary folder are no reason to fail.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn secret() -> io::Result<String> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| io::Error::other("no random bytes"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Valid for a day, as `tidegate.toml` demands it.
fn token(header: &Header, key: &EncodingKey) -> io::Result<String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let tomorrow = now.map_err(io::Error::other)?.as_secs() + 24 * 60 * 60;
    let claims = json!({
        "iss": "https://id.example.com", "aud": "chat", "sub": "alice", "exp": tomorrow,
    });
    jsonwebtoken::encode(header, &claims, key).map_err(io::Error::other)
}

/// Removes folders of runs that were killed before they could.
fn remove_leftovers() {
    let entries = fs::read_dir(std::env::temp_dir());
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok()) else {
            continue;
        };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            // Another user's folder stays, and does no harm.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Of the folder's name; the process follows.
const PREFIX: &str = "tidegate-bench-";
