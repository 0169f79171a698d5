# The Rust crate (tokenizers, minijinja) as a static library behind rust/statera_text.h, built by cargo when its sources change.
find_program(CARGO cargo)
if(NOT CARGO)
  message(FATAL_ERROR "cargo not found: run scripts/setup.sh (Debian packages cargo-web rustc-web, or rustup)")
endif()
set(rust_dir ${CMAKE_SOURCE_DIR}/rust)
set(rust_target ${CMAKE_SOURCE_DIR}/build/rust)
set(rust_lib ${rust_target}/release/libstatera_text.a)
file(GLOB rust_sources CONFIGURE_DEPENDS ${rust_dir}/src/*.rs)
# Cargo.lock is not committed (it names a registry): scripts/cargo_lock.sh makes it from Cargo.lock.in.
add_custom_command(
  OUTPUT ${rust_dir}/Cargo.lock
  COMMAND ${CMAKE_COMMAND} -E env CARGO=${CARGO} ${CMAKE_SOURCE_DIR}/scripts/cargo_lock.sh
  DEPENDS ${rust_dir}/Cargo.lock.in ${rust_dir}/Cargo.toml ${CMAKE_SOURCE_DIR}/scripts/cargo_lock.sh
  COMMENT "Cargo.lock from Cargo.lock.in"
  VERBATIM)
# touch: cargo leaves an unchanged library with its old time, and ninja would ask again at every build.
add_custom_command(
  OUTPUT ${rust_lib}
  COMMAND ${CMAKE_COMMAND} -E env CARGO_TARGET_DIR=${rust_target} ${CARGO} build --release --quiet --locked --manifest-path ${rust_dir}/Cargo.toml
  COMMAND ${CMAKE_COMMAND} -E touch ${rust_lib}
  DEPENDS ${rust_sources} ${rust_dir}/Cargo.toml ${rust_dir}/Cargo.lock
  COMMENT "cargo build (tokenizers, minijinja)"
  VERBATIM)
add_custom_target(statera_rust_build DEPENDS ${rust_lib})
add_library(statera_rust INTERFACE)
add_dependencies(statera_rust statera_rust_build)
target_include_directories(statera_rust INTERFACE ${rust_dir})
target_link_libraries(statera_rust INTERFACE ${rust_lib} Threads::Threads dl m)
