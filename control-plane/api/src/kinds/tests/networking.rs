//! Network policies, ingresses and their classes.

use expect_test::{Expect, expect};

use super::{cells, defaults, validation};

fn manifest(kind: &str, spec: &str) -> String {
    format!("{{apiVersion: networking.k8s.io/v1, kind: {kind}, metadata: {{name: web}}, spec: {spec}}}")
}

fn policy(spec: &str, expected: &Expect) {
    validation::check(&manifest("NetworkPolicy", spec), expected);
}

fn ingress(spec: &str, expected: &Expect) {
    validation::check(&manifest("Ingress", spec), expected);
}

#[test]
fn a_policy_is_about_what_comes_in_unless_it_names_what_goes_out() {
    defaults::check(
        &manifest("NetworkPolicy", "{podSelector: {}}"),
        &expect![[r#"
        apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata:
          generation: 1
          name: web
          namespace: default
        spec:
          podSelector: {}
          policyTypes:
          - Ingress
    "#]],
    );
    defaults::check(
        &manifest(
            "NetworkPolicy",
            "{egress: [{ports: [{port: 53, protocol: UDP}, {port: 80, endPort: 90}]}]}",
        ),
        &expect![[r#"
            apiVersion: networking.k8s.io/v1
            kind: NetworkPolicy
            metadata:
              generation: 1
              name: web
              namespace: default
            spec:
              egress:
              - ports:
                - port: 53
                  protocol: UDP
                - endPort: 90
                  port: 80
                  protocol: TCP
              podSelector: {}
              policyTypes:
              - Ingress
              - Egress
        "#]],
    );
}

#[test]
fn policies_say_whom_and_what_they_let_pass() {
    policy(
        "{ingress: [{from: [{}]}]}",
        &expect![[r#"
        NetworkPolicy.networking.k8s.io "web"
        spec.ingress[0].from[0]: Required value: must specify a peer
    "#]],
    );
    policy(
        "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]}",
        &expect!["valid"],
    );
    policy(
        "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.1.0.0/16, 10.0.0.0/8, x]}}, {ipBlock: {cidr: x}}]}]}",
        &expect![[r#"
            NetworkPolicy.networking.k8s.io "web"
            spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "11.1.0.0/16": must be a strict subset of `cidr`
            spec.ingress[0].from[0].ipBlock.except[1]: Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`
            spec.ingress[0].from[0].ipBlock.except[2]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
            spec.ingress[0].from[1].ipBlock.cidr: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
        "#]],
    );
    policy(
        "{egress: [{to: [{ipBlock: {cidr: '::/0'}, podSelector: {}}, {podSelector: {matchExpressions: [{key: a, operator: Is}]}}]}]}",
        &expect![[r#"
            NetworkPolicy.networking.k8s.io "web"
            spec.egress[0].to[0]: Forbidden: may not specify both ipBlock and another peer
            spec.egress[0].to[1].podSelector.matchExpressions[0].operator: Invalid value: "Is": not a valid selector operator
        "#]],
    );
    policy(
        "{policyTypes: [Both], ingress: [{ports: [{protocol: ICMP}, {port: 70000}, {port: 90, endPort: 80}, {port: web, endPort: 80}, {endPort: 80}]}]}",
        &expect![[r#"
            NetworkPolicy.networking.k8s.io "web"
            spec.ingress[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"
            spec.ingress[0].ports[1].port: Invalid value: 70000: must be between 1 and 65535, inclusive
            spec.ingress[0].ports[2].endPort: Invalid value: 80: must be greater than or equal to `port`
            spec.ingress[0].ports[3].endPort: Invalid value: 80: may not be specified when `port` is non-numeric
            spec.ingress[0].ports[4].endPort: Invalid value: 80: may not be specified when `port` is not specified
            spec.policyTypes[0]: Unsupported value: "Both": supported values: "Egress", "Ingress"
        "#]],
    );
}

#[test]
fn ingresses_lead_somewhere() {
    let backend = "backend: {service: {name: web, port: {number: 80}}}";
    ingress(
        "{}",
        &expect![[r#"
        Ingress.networking.k8s.io "web"
        spec: Invalid value: {}: either `defaultBackend` or `rules` must be specified
    "#]],
    );
    ingress(
        &format!(
            "{{rules: [{{host: '*.example.com', http: {{paths: [{{path: /a, pathType: Prefix, {backend}}}, {{pathType: ImplementationSpecific, {backend}}}]}}}}]}}"
        ),
        &expect!["valid"],
    );
    ingress(
        "{defaultBackend: {service: {name: web}}, rules: [{host: 10.0.0.1, http: {paths: []}}, {host: 'a.*.com'}], tls: [{hosts: [A]}]}",
        &expect![[r#"
            Ingress.networking.k8s.io "web"
            spec.defaultBackend: Required value: port name or number is required
            spec.rules[0].host: Invalid value: "10.0.0.1": must be a DNS name, not an IP address
            spec.rules[0].http.paths: Required value
            spec.rules[1].host: Invalid value: "a.*.com": a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.tls[0].hosts[0]: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        "#]],
    );
    ingress(
        &format!(
            "{{ingressClassName: A, rules: [{{http: {{paths: [{{path: a, pathType: Exact, {backend}}}, {{path: /a//b/.., pathType: Prefix, {backend}}}, {{path: /, pathType: Glob, {backend}}}, {{path: /, pathType: Exact, backend: {{}}}}]}}}}]}}"
        ),
        &expect![[r#"
            Ingress.networking.k8s.io "web"
            spec.rules[0].http.paths[0].path: Invalid value: "a": must be an absolute path
            spec.rules[0].http.paths[1].path: Invalid value: "/a//b/..": must not contain '//'
            spec.rules[0].http.paths[1].path: Invalid value: "/a//b/..": cannot end with '/..'
            spec.rules[0].http.paths[2].pathType: Unsupported value: "Glob": supported values: "Exact", "ImplementationSpecific", "Prefix"
            spec.rules[0].http.paths[3].backend: Invalid value: "": resource or service backend is required
            spec.ingressClassName: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        "#]],
    );
}

#[test]
fn classes_name_their_controller() {
    for (spec, expected) in [
        ("{controller: flotilla.dev/ingress}", expect!["valid"]),
        (
            "{}",
            expect![[r#"
            IngressClass.networking.k8s.io "web"
            spec.controller: Required value
        "#]],
        ),
        (
            "{controller: ingress}",
            expect![[r#"
            IngressClass.networking.k8s.io "web"
            spec.controller: Invalid value: "ingress": must be a domain-prefixed path (such as "acme.io/foo")
        "#]],
        ),
        (
            "{controller: a.b/c, parameters: {kind: A, name: b, scope: Namespace}}",
            expect![[r#"
                IngressClass.networking.k8s.io "web"
                spec.parameters.namespace: Required value: parameters.scope is set to 'Namespace'
            "#]],
        ),
    ] {
        validation::check(&manifest("IngressClass", spec), &expected);
    }
}

#[test]
fn rows() {
    cells::check(
        &[
            &manifest("NetworkPolicy", "{podSelector: {matchLabels: {app: web}}}"),
            &manifest("NetworkPolicy", "{podSelector: {}}"),
        ],
        &expect![[r#"
            Name | Pod-Selector | Age
            web | app=web | <unknown>
            web | <none> | <unknown>
        "#]],
    );
    let rules = "{host: a.b}, {host: c.d}, {host: e.f}, {host: g.h}";
    cells::check(
        &[
            &format!(
                "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: web}}, spec: {{ingressClassName: flotilla, rules: [{rules}], tls: [{{}}]}}, status: {{loadBalancer: {{ingress: [{{ip: 10.0.0.1}}, {{ip: 10.0.0.2}}]}}}}}}"
            ),
            &manifest("Ingress", "{defaultBackend: {service: {name: web}}}"),
        ],
        &expect![[r#"
            Name | Class | Hosts | Address | Ports | Age
            web | flotilla | a.b,c.d,e.f + 1 more... | 10.0.0.1,10.0.0.2 | 80, 443 | <unknown>
            web | <none> | * |  | 80 | <unknown>
        "#]],
    );
    cells::check(
        &[
            &manifest("IngressClass", "{controller: flotilla.dev/ingress}"),
            &manifest(
                "IngressClass",
                "{controller: a.b/c, parameters: {apiGroup: k8s.example.com, kind: A, name: b}}",
            ),
        ],
        &expect![[r#"
            Name | Controller | Parameters | Age
            web | flotilla.dev/ingress | <none> | <unknown>
            web | a.b/c | A.k8s.example.com/b | <unknown>
        "#]],
    );
}
