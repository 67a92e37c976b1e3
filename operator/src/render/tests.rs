//! Tables of rendering.
