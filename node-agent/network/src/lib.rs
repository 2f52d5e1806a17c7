//! Bridge, pod addresses, routes.
