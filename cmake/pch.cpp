// Owns the shared precompiled header (cmake/pch.h).
