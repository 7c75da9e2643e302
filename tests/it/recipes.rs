//! The pages of `docs/recipes`: every configuration in them loads, without warnings, and every
//! page is listed. `tests/recipes/run` plays them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tidegate::config::problem::{Loaded, render};
use tidegate::config::{self, Auth};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/recipes")
}

/// Name and text of every page but the list of them.
fn pages() -> Vec<(String, String)> {
    let entries = fs::read_dir(root()).expect("the folder is there");
    let mut pages: Vec<_> = entries
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| {
            let name = path.file_name().expect("a file").to_string_lossy();
            let text = fs::read_to_string(&path).expect("a readable page");
            (name.into_owned(), text)
        })
        .filter(|(name, _)| name != "README.md")
        .collect();
    pages.sort();
    pages
}

/// The text of every block in `language`.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let fence = format!("\n```{language}\n");
    let rests = text.split(fence.as_str()).skip(1);
    rests
        .map(|rest| rest.split("\n```\n").next().expect("a block that ends"))
        .collect()
}

#[test]
fn every_configuration_of_a_recipe_loads_without_warnings_and_asks_for_a_token() {
    let pages = pages();
    assert!(pages.len() >= 4, "only {} pages seen", pages.len());
    for (name, text) in pages {
        let configurations = blocks(&text, "toml");
        assert!(!configurations.is_empty(), "{name} has no configuration");
        for text in configurations {
            let loaded = config::parse(text, &root());
            let Loaded {
                config,
                warnings,
                text,
            } = loaded.unwrap_or_else(|refused| {
                let shown = render(Path::new(&name), &refused.problems, &refused.text);
                panic!("{shown}")
            });
            let shown = render(Path::new(&name), &warnings, &text);
            assert_eq!(shown, "");
            for route in &config.routes {
                assert!(matches!(route.auth, Auth::Token(_)), "{name}");
            }
        }
    }
}

#[test]
fn every_recipe_is_played_and_listed() {
    let list = fs::read_to_string(root().join("README.md")).expect("the list is there");
    let links = list.split("](").skip(1);
    let linked: BTreeSet<String> = links
        .filter_map(|rest| rest.split(')').next())
        .filter(|link| link.ends_with(".md") && !link.contains('/'))
        .map(str::to_owned)
        .collect();
    let pages = pages();
    let written: BTreeSet<String> = pages.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(linked, written);
    for (name, text) in pages {
        let commands = blocks(&text, "console");
        let commands = commands.iter().flat_map(|block| block.lines());
        let commands = commands.filter(|line| line.starts_with("$ ")).count();
        assert!(commands >= 5, "{name}: only {commands} commands");
    }
}
