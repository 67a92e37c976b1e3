//! Reads values as a type and knows the place of the first that does not fit.
//!
//! The place is kept by the deserializer itself, and not by wrapping each visitor as `serde_path_to_error` does, which
//! makes the code of every type twice.

use std::cell::OnceCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Number, Value, map};

use crate::endpoints::EndpointSet;
use crate::identities::KnownIdentity;
use crate::identity::Identity;
use crate::policy::Policy;
use crate::settings::Settings;
use crate::trust::Trust;

/// What [`Document::read`](crate::Document::read) reads. Each type has its own few lines, so that its code is made in
/// this crate, which is built for size, and not where it is called.
pub trait Readable: Sized {
    /// Reads values.
    ///
    /// # Errors
    /// With the place of the first that does not fit, empty for the value itself.
    fn read(value: Value) -> Result<Self, (String, Error)>;
}

impl Readable for Settings {
    fn read(value: Value) -> Result<Self, (String, Error)> {
        read(value)
    }
}

impl Readable for Trust {
    fn read(value: Value) -> Result<Self, (String, Error)> {
        read(value)
    }
}

impl Readable for Identity {
    fn read(value: Value) -> Result<Self, (String, Error)> {
        read(value)
    }
}

impl Readable for Vec<KnownIdentity> {
    fn read(value: Value) -> Result<Self, (String, Error)> {
        read(value)
    }
}

impl Readable for Policy {
    fn read(value: Value) -> Result<Self, (String, Error)> {
        read(value)
    }
}

impl Readable for Vec<EndpointSet> {
    fn read(value: Value) -> Result<Self, (String, Error)> {
        read(value)
    }
}

/// What is wrong, and the path to it from the value that was read: `routes[0].mode`, or nothing for the value itself.
fn read<T: DeserializeOwned>(value: Value) -> Result<T, (String, Error)> {
    let failed = OnceCell::new();
    let at = Place { step: Step::Top, failed: &failed };
    T::deserialize(Reader { value, at }).map_err(|error| (failed.into_inner().unwrap_or_default(), error))
}

/// Where a value stands. The innermost place at which reading fails is the one that is kept, so each that an error
/// passes on its way out offers itself.
#[derive(Clone, Copy)]
struct Place<'a> {
    step: Step<'a>,
    failed: &'a OnceCell<String>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Top,
    Key(&'a Step<'a>, &'a str),
    Index(&'a Step<'a>, usize),
}

impl Place<'_> {
    fn keep(self, error: Error) -> Error {
        self.failed.get_or_init(|| self.step.to_string());
        error
    }
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top => Ok(()),
            Self::Key(Self::Top, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

struct Reader<'a> {
    value: Value,
    at: Place<'a>,
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let read = match self.value {
            Value::Array(values) => List::new(values, self.at).read(visitor),
            Value::Object(values) => {
                visitor.visit_map(Table { values: values.into_iter(), current: None, at: self.at })
            }
            // One by one: handing them to serde_json would make each type's code for its values too.
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::String(value) => visitor.visit_string(value),
            Value::Number(value) => number(&value, visitor),
        };
        read.map_err(|error| self.at.keep(error))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let read = match self.value {
            Value::String(variant) => visitor.visit_enum(Variant { variant, content: None, at: self.at }),
            Value::Object(values) if values.len() == 1 => match values.into_iter().next() {
                Some((variant, content)) => {
                    visitor.visit_enum(Variant { variant, content: Some(content), at: self.at })
                }
                None => Err(de::Error::custom("a table lost its key")),
            },
            Value::Object(_) => Err(de::Error::invalid_value(Unexpected::Map, &"map with a single key")),
            other => Err(de::Error::invalid_type(unexpected(&other), &"string or map")),
        };
        read.map_err(|error| self.at.keep(error))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

fn number<'de, V: Visitor<'de>>(value: &Number, visitor: V) -> Result<V::Value, Error> {
    match (value.as_u64(), value.as_i64(), value.as_f64()) {
        (Some(whole), _, _) => visitor.visit_u64(whole),
        (_, Some(whole), _) => visitor.visit_i64(whole),
        (_, _, Some(fraction)) => visitor.visit_f64(fraction),
        (None, None, None) => Err(de::Error::custom("a number that is none")),
    }
}

/// What can stand where a variant should, beside text and tables.
fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(value) => Unexpected::Bool(*value),
        Value::Number(value) => match (value.as_u64(), value.as_i64(), value.as_f64()) {
            (Some(whole), _, _) => Unexpected::Unsigned(whole),
            (_, Some(whole), _) => Unexpected::Signed(whole),
            (_, _, fraction) => Unexpected::Float(fraction.unwrap_or_default()),
        },
        Value::String(text) => Unexpected::Str(text),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    }
}

struct List<'a> {
    values: std::iter::Enumerate<std::vec::IntoIter<Value>>,
    at: Place<'a>,
}

impl<'a> List<'a> {
    fn new(values: Vec<Value>, at: Place<'a>) -> Self {
        Self { values: values.into_iter().enumerate(), at }
    }

    /// What takes a list takes it whole: a value that nobody looked at would be dropped in silence.
    fn read<'de, V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        let length = self.values.len();
        let read = visitor.visit_seq(&mut self)?;
        match self.values.len() {
            0 => Ok(read),
            _ => Err(de::Error::invalid_length(length, &"fewer elements in array")),
        }
    }
}

impl<'de> SeqAccess<'de> for &mut List<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((index, value)) = self.values.next() else { return Ok(None) };
        let at = Place { step: Step::Index(&self.at.step, index), ..self.at };
        seed.deserialize(Reader { value, at }).map(Some).map_err(|error| at.keep(error))
    }
}

struct Table<'a> {
    values: map::IntoIter,
    /// The key that was read last and its value, which is read next.
    current: Option<(String, Value)>,
    at: Place<'a>,
}

impl<'de> MapAccess<'de> for Table<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.current = self.values.next();
        let Some((key, _)) = &self.current else { return Ok(None) };
        let at = Place { step: Step::Key(&self.at.step, key), ..self.at };
        let key: StrDeserializer<'_, Error> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| at.keep(error))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let (key, value) = self.current.take().ok_or_else(|| de::Error::custom("a value without its key"))?;
        let at = Place { step: Step::Key(&self.at.step, &key), ..self.at };
        seed.deserialize(Reader { value, at }).map_err(|error| at.keep(error))
    }
}

struct Variant<'a> {
    variant: String,
    content: Option<Value>,
    at: Place<'a>,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name: StrDeserializer<'_, Error> = self.variant.as_str().into_deserializer();
        let read = seed.deserialize(name)?;
        Ok((read, self))
    }
}

impl Variant<'_> {
    /// Reads what stands under the variant's name.
    fn read<T>(self, expected: &str, read: impl FnOnce(Reader<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let at = Place { step: Step::Key(&self.at.step, &self.variant), ..self.at };
        match self.content {
            Some(value) => read(Reader { value, at }).map_err(|error| at.keep(error)),
            None => Err(at.keep(de::Error::invalid_type(Unexpected::UnitVariant, &expected))),
        }
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.content {
            Some(_) => self.read("unit variant", |content| <() as de::Deserialize>::deserialize(content)),
            None => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        self.read("newtype variant", |content| seed.deserialize(content))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.read("tuple variant", |content| content.deserialize_any(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.read("struct variant", |content| content.deserialize_any(visitor))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Rule {
        name: String,
        #[serde(default)]
        ports: Vec<u16>,
        #[serde(default)]
        allow: Option<Vec<Allow>>,
        #[serde(default)]
        labels: BTreeMap<String, Text>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Text(String);

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum Allow {
        Nobody,
        Named(Text),
        Where { key: String },
        Both(u8, u8),
    }

    /// What is read is what serde_json reads of the same values, and so is what is wrong with them.
    fn reads<T: DeserializeOwned + PartialEq + Debug>(value: Value, place: Option<&str>) {
        let text = value.to_string();
        let ours = read::<T>(value.clone());
        assert_eq!(ours.as_ref().err().map(|(place, _)| place.as_str()), place, "{text}");
        let ours = ours.map_err(|(_, error)| error.to_string());
        assert_eq!(ours, T::deserialize(value).map_err(|error| error.to_string()), "{text}");
    }

    #[test]
    fn values_are_read_as_serde_json_reads_them() {
        let rows = [
            (json!({"name": "a"}), None),
            (json!({"name": "a", "ports": [1, 65535], "labels": {"x.y": "z"}}), None),
            (
                json!({"name": "a", "allow": ["nobody", {"named": "b"}, {"where": {"key": "c"}}, {"both": [1, 2]}]}),
                None,
            ),
            (json!({"name": "a", "allow": null}), None),
            (json!({"name": "a", "allow": [{"nobody": null}]}), None),
            (json!(["a"]), None),
            (json!(["a", [1], null, {}, "one too many"]), Some("")),
            (json!("a"), Some("")),
            (json!({}), Some("")),
            (json!({"name": 1}), Some("name")),
            (json!({"name": "a", "Ports": []}), Some("Ports")),
            (json!({"name": "a", "ports": 1}), Some("ports")),
            (json!({"name": "a", "ports": [1, 65536]}), Some("ports[1]")),
            (json!({"name": "a", "labels": {"x": "y", "z": null}}), Some("labels.z")),
            (json!({"name": "a", "allow": [{"where": {"key": 1}}]}), Some("allow[0].where.key")),
            (json!({"name": "a", "allow": [{"both": [1]}]}), Some("allow[0].both")),
            (json!({"name": "a", "allow": [{"both": [1, -1]}]}), Some("allow[0].both[1]")),
            (json!({"name": "a", "allow": ["named"]}), Some("allow[0].named")),
            (json!({"name": "a", "allow": [{"named": ["b"]}]}), Some("allow[0].named")),
            (json!({"name": "a", "allow": [{"nobody": 1}]}), Some("allow[0].nobody")),
            (json!({"name": "a", "allow": [{}]}), Some("allow[0]")),
            (json!({"name": "a", "allow": [{"named": "b", "nobody": null}]}), Some("allow[0]")),
            (json!({"name": "a", "allow": [{"everybody": null}]}), Some("allow[0]")),
            (json!({"name": "a", "allow": [1]}), Some("allow[0]")),
            (json!({"name": "a", "allow": [-1]}), Some("allow[0]")),
            (json!({"name": "a", "allow": [1.5]}), Some("allow[0]")),
            (json!({"name": "a", "allow": [true]}), Some("allow[0]")),
            (json!({"name": "a", "allow": [null]}), Some("allow[0]")),
            (json!({"name": "a", "allow": [[]]}), Some("allow[0]")),
            (json!({"name": -1}), Some("name")),
            (json!({"name": 1.5}), Some("name")),
            (json!({"name": true}), Some("name")),
        ];
        for (value, place) in rows {
            reads::<Rule>(value, place);
        }
        reads::<Vec<Rule>>(json!([{"name": "a"}, {"name": null}]), Some("[1].name"));
    }
}
