//! The proxy, running in this process.

use std::net::SocketAddr;
use std::panic;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use tidegate::config::Apply;
use tidegate::config::problem::Loaded;
use tidegate::server::{By, Ending, Origin, Outcome, Prepared, Running};
use tidegate::telemetry::{Counters, Record};
use tokio::sync::mpsc;

use super::client::Entrance;
use super::folder::Folder;
use super::settings::Settings;
use super::token::{SECRET, SECRET_NAME};
use super::{until, within};

/// See [`Settings::start`]. Must be stopped.
pub struct Proxy {
    /// Where and how clients come in at the first listener.
    pub entrance: Entrance,
    /// Of all listeners.
    pub addresses: Vec<SocketAddr>,
    /// The admin address, where there is one.
    pub admin: Option<SocketAddr>,
    running: Option<Running>,
    records: mpsc::UnboundedReceiver<Record>,
    /// Certificates stay where the configuration says as long as the proxy runs.
    folder: Folder,
}

impl Settings {
    /// Starts the proxy on a free port.
    pub fn start(self) -> Proxy {
        let (folder, certificate) = self.folder();
        let file = folder.path("proxy.toml");
        let Loaded {
            mut config, text, ..
        } = match tidegate::config::load(&file) {
            Ok(loaded) => loaded,
            Err(refused) => panic!("{:#?}", refused.problems),
        };
        self.apply_to(&mut config);
        let env = |name: &str| (name == SECRET_NAME).then(|| SECRET.to_owned());
        let (prepared, _warnings) = Prepared::load(config, &env).expect("it would start");
        let prepared = prepared.renewable(Origin::new(&file, Arc::new(env)), text);
        let (seen, records) = mpsc::unbounded_channel();
        let observer = move |record: &Record| {
            // A test that ended without reading the record has no use for it.
            let _unread = seen.send(record.clone());
        };
        let running = prepared.start(Some(Box::new(observer)));
        let running = running.expect("it starts");
        let address = *running.addresses.first().expect("a listener");
        Proxy {
            addresses: running.addresses.clone(),
            admin: running.admin,
            entrance: Entrance::new(address, certificate),
            running: Some(running),
            records,
            folder,
        }
    }
}

impl Proxy {
    /// The record of the next session that ends.
    pub async fn record(&mut self) -> Record {
        let record = within("a session-end record", self.records.recv()).await;
        record.expect("the proxy runs")
    }

    /// Memory for bytes on their way, of all sessions.
    pub fn buffered(&self) -> usize {
        self.running.as_ref().expect("it runs").buffered.total()
    }

    /// A file beside the configuration.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    /// Waits until a counter stands at `n`, and asserts that it is not above.
    pub async fn counted(&self, what: &str, n: u64, count: impl Fn(&Counters) -> u64) {
        let counters = &self.running.as_ref().expect("it runs").telemetry.counters;
        let counted = until(what, || Some(count(counters)).filter(|c| *c >= n)).await;
        assert_eq!(counted, n, "{what}");
    }

    /// Writes another configuration, and has it taken.
    pub async fn reload(&self, settings: &Settings, apply: Option<Apply>) -> Outcome {
        self.folder.write("proxy.toml", &settings.toml());
        self.reload_as_it_is(apply).await
    }

    /// Has the configuration read again.
    pub async fn reload_as_it_is(&self, apply: Option<Apply>) -> Outcome {
        let reloads = &self.running.as_ref().expect("it runs").reloads;
        within("a reload", reloads.ask(By::Signal, apply)).await
    }

    /// As when another process has the sockets.
    pub fn hand_over(&self) {
        let running = self.running.as_ref().expect("it runs");
        running.drain(Ending::HandedOver, running.drain_times().grace);
    }

    pub fn drain(&self) {
        drain(self.running.as_ref().expect("it runs"));
    }

    /// Resolves when every worker has ended.
    pub async fn ended(&mut self) {
        let running = self.running.as_mut().expect("it runs");
        within("the end of every worker", running.ended()).await;
    }

    /// Drains, waits for the workers, and panics with what one of them panicked with.
    pub async fn stop(mut self) {
        self.drain();
        self.ended().await;
        let running = self.running.take().expect("it runs");
        if let Err(panicked) = running.join() {
            panic::resume_unwind(panicked);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            drain(running);
            assert!(thread::panicking(), "a test stops its proxy");
        }
    }
}

fn drain(running: &Running) {
    running.drain(Ending::Stopped, running.drain_times().grace);
}
