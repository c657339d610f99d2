//! Which module of a crate names which, read from the sources: paths that begin at `crate`, `super`, `self` or a child of the
//! module that says them, with what `use` passes on followed to where it comes from. Code that only tests have is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The path of a module or of what is in one, from the root of its crate.
pub type Names = Vec<String>;

/// One module names something of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrow {
    /// Who.
    pub from: Names,
    /// The module of what is named.
    pub to: Names,
}

/// The modules of a crate and the paths that they say.
#[derive(Default)]
pub struct Sources {
    modules: BTreeSet<Names>,
    /// Who says what.
    said: Vec<(Names, Names)>,
    /// What a module's name stands for, by `use`.
    passed_on: BTreeMap<Names, (Names, Names)>,
    only_tests: Vec<Names>,
}

/// `module` with a name behind it.
fn child(module: &[String], name: &str) -> Names {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

fn ident(tree: Option<&TokenTree>) -> Option<String> {
    match tree {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

fn braces(tree: Option<&TokenTree>) -> Option<TokenStream> {
    match tree {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => Some(group.stream()),
        _ => None,
    }
}

fn is_punct(tree: Option<&TokenTree>, letter: char) -> bool {
    matches!(tree, Some(TokenTree::Punct(punct)) if punct.as_char() == letter)
}

/// Whether `::` is at `at`.
fn colons(trees: &[TokenTree], at: usize) -> bool {
    is_punct(trees.get(at), ':') && is_punct(trees.get(at + 1), ':')
}

/// Whether an attribute's brackets say that only tests have what follows.
fn for_tests(tree: Option<&TokenTree>) -> bool {
    let Some(TokenTree::Group(group)) = tree else { return false };
    let text = group.stream().to_string().replace(' ', "");
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

impl Sources {
    /// All Rust files below `folder`, which is a crate's `src`.
    pub fn read(folder: &Path) -> Sources {
        let mut sources = Sources::default();
        let mut waiting = vec![(folder.to_owned(), Names::new())];
        while let Some((folder, module)) = waiting.pop() {
            for entry in fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let name = path.file_stem().and_then(|name| name.to_str()).expect("a UTF-8 name");
                let module = if ["lib", "main", "mod"].contains(&name) { module.clone() } else { child(&module, name) };
                if path.is_dir() {
                    waiting.push((path, module));
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    sources.file(&path, &module);
                }
            }
        }
        sources
    }

    fn file(&mut self, path: &PathBuf, module: &[String]) {
        let code = fs::read_to_string(path).expect("a source file");
        self.code(&code, module);
    }

    /// The code of a module.
    pub fn code(&mut self, code: &str, module: &[String]) {
        let tokens = code.parse().unwrap_or_else(|error| panic!("{module:?}: {error}"));
        self.tokens(tokens, module);
    }

    fn tokens(&mut self, tokens: TokenStream, module: &[String]) {
        self.modules.insert(module.to_vec());
        let trees: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < trees.len() {
            at = self.step(&trees, at, module);
        }
    }

    /// Takes what is at `at`; where the next is.
    fn step(&mut self, trees: &[TokenTree], at: usize, module: &[String]) -> usize {
        if is_punct(trees.get(at), '#') && for_tests(trees.get(at + 1)) {
            return self.skip(trees, at + 2, module);
        }
        match (ident(trees.get(at)).as_deref(), &trees[at]) {
            (Some("mod"), _) => {
                if let (Some(name), Some(inner)) = (ident(trees.get(at + 1)), braces(trees.get(at + 2))) {
                    self.tokens(inner, &child(module, &name));
                    return at + 3;
                }
            }
            (Some("use"), _) => return self.path(trees, at + 1, module, (&[], true)),
            (Some(_), _) if colons(trees, at + 1) && !(at > 1 && colons(trees, at - 2)) => {
                return self.path(trees, at, module, (&[], false));
            }
            (None, TokenTree::Group(group)) => self.tokens(group.stream(), module),
            _ => {}
        }
        at + 1
    }

    /// Leaves out an item that only tests have.
    fn skip(&mut self, trees: &[TokenTree], mut at: usize, module: &[String]) -> usize {
        while at < trees.len() && !is_punct(trees.get(at), ';') && braces(trees.get(at)).is_none() {
            if ident(trees.get(at)).as_deref() == Some("mod")
                && let Some(name) = ident(trees.get(at + 1))
            {
                self.only_tests.push(child(module, &name));
            }
            at += 1;
        }
        at + 1
    }

    /// Takes a path, which goes on from `before`, or several in braces; where the next token is. Those of a `use` are passed on.
    fn path(&mut self, trees: &[TokenTree], mut at: usize, module: &[String], before: (&[String], bool)) -> usize {
        let (mut names, is_use) = (before.0.to_vec(), before.1);
        if is_punct(trees.get(at), ',') {
            return at + 1;
        }
        loop {
            if let Some(inner) = braces(trees.get(at)) {
                let inner: Vec<TokenTree> = inner.into_iter().collect();
                let mut each = 0;
                while each < inner.len() {
                    let next = self.path(&inner, each, module, (&names, is_use));
                    each = next.max(each + 1);
                }
                return at + 1;
            }
            let Some(name) = ident(trees.get(at)) else { break };
            names.push(name);
            at += 1;
            if !colons(trees, at) {
                break;
            }
            at += 2;
        }
        let renamed = ident(trees.get(at)).is_some_and(|word| word == "as");
        let alias = if renamed { ident(trees.get(at + 1)) } else { names.last().cloned() };
        if let (true, Some(alias)) = (is_use, alias) {
            self.passed_on.insert(child(module, &alias), (module.to_vec(), names.clone()));
        }
        self.said.push((module.to_vec(), names));
        if renamed { at + 2 } else { at }
    }

    /// What `names`, said in `module`, stands for from the root of the crate; `None` if it is of no module of the crate.
    fn absolute(&self, module: &[String], names: &[String]) -> Option<Names> {
        let (mut base, mut rest) = (module.to_vec(), names);
        match names.first().map(String::as_str)? {
            "crate" => (base, rest) = (Names::new(), &names[1..]),
            "self" => rest = &names[1..],
            "super" => {}
            first if self.modules.contains(&child(module, first)) => {}
            _ => return None,
        }
        while rest.first().is_some_and(|name| name == "super") {
            base.pop();
            rest = &rest[1..];
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    /// The module that has what is at `path`.
    fn owner(&self, path: &[String], steps: u32) -> Names {
        let depth = (0..=path.len()).rev().find(|&depth| self.modules.contains(&path[..depth])).unwrap_or_default();
        let passed_on = path.get(..=depth).and_then(|name| self.passed_on.get(name));
        // A name may be passed on through several modules, and never in a circle that compiles.
        match passed_on.and_then(|(module, names)| self.absolute(module, names)) {
            Some(target) if steps > 0 && target[..] != path[..=depth] => {
                let whole: Names = target.into_iter().chain(path[depth + 1..].iter().cloned()).collect();
                self.owner(&whole, steps - 1)
            }
            _ => path[..depth].to_vec(),
        }
    }

    fn is_test(&self, module: &[String]) -> bool {
        self.only_tests.iter().any(|tests| module.starts_with(tests))
    }

    /// The modules that are no test's.
    pub fn modules(&self) -> impl Iterator<Item = &Names> {
        self.modules.iter().filter(|module| !self.is_test(module))
    }

    /// Who names what, outside tests.
    pub fn arrows(&self) -> BTreeSet<Arrow> {
        let said = self.said.iter().filter(|(from, _)| !self.is_test(from));
        let resolved = said.filter_map(|(from, names)| Some((from, self.absolute(from, names)?)));
        resolved.map(|(from, path)| Arrow { from: from.clone(), to: self.owner(&path, 8) }).collect()
    }
}
