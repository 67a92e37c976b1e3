//! The reference of the API, as a page.

use std::fmt::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

pub(super) fn reference(_definitions: &[CustomResourceDefinition]) -> String {
    let mut page = String::new();
    let _ = writeln!(page, "<!-- {} -->", super::HEAD);
    page
}
