//! What can be asked for by name, for clients of monitors that ask: devices, machines and CPU models with their properties, and
//! options with their parameters. Who makes a machine's configuration (the command line) implements it.

use std::fmt;
use std::ops::Deref;

use mimus_hw::registry;

use crate::config::{MachineKind, UserObject};

/// What kind of value a property has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// `on` or `off`.
    Switch,
    /// A whole number.
    Number,
    /// A number of bytes.
    Size,
    /// Text.
    Text,
}

/// A property of a device, or a parameter of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub kind: ValueKind,
    /// A line of help; may be empty.
    pub help: &'static str,
    /// Its value if none is given; `None` if that is no fixed one.
    pub default: Option<registry::Default>,
}

impl Property {
    /// A property of a device; `None` for one that is not supported yet.
    pub fn of(property: &registry::Property) -> Option<Property> {
        use registry::Kind;
        let kind = match property.kind {
            Kind::NotYet => return None,
            Kind::Number(..) | Kind::Address(..) => ValueKind::Number,
            Kind::Word(words) | Kind::Among(words) if words.contains(&"on") => ValueKind::Switch,
            Kind::Fixed("on" | "off") => ValueKind::Switch,
            Kind::Word(_) | Kind::Among(_) | Kind::Fixed(_) => ValueKind::Text,
            Kind::Text(_) | Kind::Id(_) | Kind::Accepted | Kind::Without(_) => ValueKind::Text,
        };
        Some(Property { name: property.name, kind, help: property.help, default: property.default })
    }
}

/// Something that the command line offers by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// The name.
    pub name: &'static str,
    /// What can be said of it.
    pub properties: Vec<Property>,
}

/// A CPU model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuModel {
    /// Its name.
    pub name: &'static str,
    /// The model that it is another name of.
    pub alias_of: Option<&'static str>,
    /// Features by their names, and whether a guest has them.
    pub features: Vec<(&'static str, bool)>,
    /// Features that it has elsewhere, and not here.
    pub missing: Vec<&'static str>,
}

/// What who makes configurations knows by name; each by default nothing.
pub trait Offers: Sync {
    /// The devices that this machine can have.
    fn devices(&self, _machine: MachineKind) -> Vec<Offered> {
        Vec::new()
    }

    /// The objects that can be made.
    fn objects(&self) -> Vec<Offered> {
        Vec::new()
    }

    /// The machines of this one's architecture.
    fn machines(&self, _machine: MachineKind) -> Vec<Offered> {
        Vec::new()
    }

    /// The CPU models of its architecture.
    fn cpus(&self, _machine: MachineKind) -> Vec<CpuModel> {
        Vec::new()
    }

    /// The options that take a value, with what can be in it where it is a list by name.
    fn options(&self, _machine: MachineKind) -> Vec<Offered> {
        Vec::new()
    }

    /// The object that `text` describes, in JSON.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    fn object(&self, _text: &str) -> Result<UserObject, String> {
        Err("nothing is known by name here".to_owned())
    }
}

/// Whom a machine's monitors ask. By default nothing is known by name.
#[derive(Clone, Copy)]
pub struct Catalogue(pub &'static dyn Offers);

impl Default for Catalogue {
    fn default() -> Self {
        struct Nothing;
        impl Offers for Nothing {}
        Catalogue(&Nothing)
    }
}

impl Deref for Catalogue {
    type Target = dyn Offers;

    fn deref(&self) -> &Self::Target {
        self.0
    }
}

impl PartialEq for Catalogue {
    /// What a machine is does not depend on it.
    fn eq(&self, _: &Catalogue) -> bool {
        true
    }
}

impl Eq for Catalogue {}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogue").finish_non_exhaustive()
    }
}
