//! The schema against builds.sr.ht's, and against the committed copy.

use std::{collections::BTreeSet, path::Path};

use async_graphql::Positioned;
use async_graphql::parser::{
    parse_schema,
    types::{
        ConstDirective, FieldDefinition, InputValueDefinition, TypeDefinition, TypeKind,
        TypeSystemDefinition,
    },
};

const REFERENCE: &str = include_str!("builds.graphqls");

/// Everything that a schema promises, a line each.
fn promises(sdl: &str) -> BTreeSet<String> {
    let document = parse_schema(sdl).expect("a schema");
    let mut promises = BTreeSet::new();
    for definition in document.definitions {
        match definition {
            TypeSystemDefinition::Type(definition) => of_type(&definition.node, &mut promises),
            TypeSystemDefinition::Directive(definition) => {
                let definition = &definition.node;
                let places = format!("{:?}", definition.locations);
                let places = places.split("node: ").skip(1);
                let places: Vec<_> = places
                    .filter_map(|place| place.split([' ', '}', ',']).next())
                    .collect();
                let arguments = arguments(&definition.arguments);
                promises.insert(format!(
                    "directive @{}{arguments} on {}",
                    definition.name.node,
                    places.join(" | ")
                ));
            }
            TypeSystemDefinition::Schema(_) => {}
        }
    }
    promises
}

fn of_type(definition: &TypeDefinition, promises: &mut BTreeSet<String>) {
    let name = &definition.name.node;
    let mut promise = |text: String| {
        promises.insert(text);
    };
    if let Some(description) = &definition.description {
        promise(format!("{name} says: {}", words(&description.node)));
    }
    match &definition.kind {
        TypeKind::Scalar => promise(format!("scalar {name}")),
        TypeKind::Object(object) => {
            promise(format!("type {name}"));
            for interface in &object.implements {
                promise(format!("{name} implements {}", interface.node));
            }
            fields(name, &object.fields, &mut promise);
        }
        TypeKind::Interface(interface) => {
            promise(format!("interface {name}"));
            fields(name, &interface.fields, &mut promise);
        }
        TypeKind::Enum(values) => {
            for value in &values.values {
                let value = &value.node;
                let directives = directives(&value.directives);
                promise(format!("enum {name}: {}{directives}", value.value.node));
            }
        }
        TypeKind::InputObject(input) => {
            for field in &input.fields {
                promise(format!("input {name}.{}", input_value(&field.node)));
            }
        }
        TypeKind::Union(_) => promise(format!("union {name}")),
    }
}

fn fields(name: &str, fields: &[Positioned<FieldDefinition>], promise: &mut impl FnMut(String)) {
    for field in fields {
        let field = &field.node;
        let at = format!("{name}.{}", field.name.node);
        promise(format!("{at}: {}", field.ty.node));
        for argument in &field.arguments {
            promise(format!("{at}({})", input_value(&argument.node)));
        }
        let directives = directives(&field.directives);
        if !directives.is_empty() {
            promise(format!("{at}{directives}"));
        }
        if let Some(description) = &field.description {
            promise(format!("{at} says: {}", words(&description.node)));
        }
    }
}

fn input_value(value: &InputValueDefinition) -> String {
    format!("{}: {}", value.name.node, value.ty.node)
}

fn arguments(values: &[Positioned<InputValueDefinition>]) -> String {
    let values: Vec<_> = values
        .iter()
        .map(|value| input_value(&value.node))
        .collect();
    format!("({})", values.join(", "))
}

fn directives(directives: &[Positioned<ConstDirective>]) -> String {
    let directive = |directive: &Positioned<ConstDirective>| {
        let arguments = directive.node.arguments.iter();
        let arguments: Vec<_> = arguments
            .map(|(name, value)| format!("{}: {}", name.node, value.node))
            .collect();
        format!(" @{}({})", directive.node.name.node, arguments.join(", "))
    };
    directives.iter().map(directive).collect()
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What async-graphql can't say.
const MISSING: &[&str] = &[];

#[test]
fn everything_that_builds_sr_ht_promises_is_served() {
    let served = promises(&kiln_server::sdl());
    let reference = promises(REFERENCE);
    let missing: Vec<_> = reference
        .difference(&served)
        .map(String::as_str)
        .filter(|promise| !promise.starts_with("Mutation.submit says"))
        .collect();
    assert_eq!(missing, MISSING, "{missing:#?}");
    assert!(reference.len() > 250, "{}", reference.len());
}

#[test]
fn the_committed_schema_is_the_served_one() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.graphql");
    let served = kiln_server::sdl();
    if std::fs::read_to_string(&docs).unwrap_or_default() != served {
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("api.graphql");
        std::fs::write(&made, served).unwrap();
        panic!(
            "docs/api.graphql is not the schema that is served; copy {} there",
            made.display()
        );
    }
}
