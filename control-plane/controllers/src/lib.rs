//! One runner, then one folder per controller.
