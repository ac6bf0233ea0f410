# add_stripped_crate(<name> MANIFEST <Cargo.toml> HEADER <header> [EXTRA <option>...])
#
# An imported static library <name>: the crate's, built by cargo-c in release mode and stripped.
# EXTRA are options for `cargo strip-hook strip`.

find_program(CARGO cargo REQUIRED)
find_program(CARGO_CBUILD cargo-cbuild HINTS "$ENV{HOME}/.cargo/bin" REQUIRED)
find_program(STRIP_HOOK cargo-strip-hook REQUIRED)

# What std needs of the system, and the triple: said by rustc, once.
function(_rustc_facts triple libraries)
    execute_process(COMMAND rustc -vV OUTPUT_VARIABLE version COMMAND_ERROR_IS_FATAL ANY)
    string(REGEX MATCH "host: ([^\n]+)" _ "${version}")
    set(${triple} "${CMAKE_MATCH_1}" PARENT_SCOPE)
    set(probe "${CMAKE_CURRENT_BINARY_DIR}/native-libraries")
    file(WRITE "${probe}.rs" "")
    execute_process(
        COMMAND rustc --crate-type staticlib --print native-static-libs "${probe}.rs"
                -o "${probe}.a"
        ERROR_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
    string(REGEX MATCH "native-static-libs: ([^\n]*)" _ "${said}")
    separate_arguments(found UNIX_COMMAND "${CMAKE_MATCH_1}")
    set(${libraries} "${found}" PARENT_SCOPE)
endfunction()

function(add_stripped_crate name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "MANIFEST;HEADER" "EXTRA")
    _rustc_facts(triple libraries)
    set(target_dir "${CMAKE_CURRENT_BINARY_DIR}/cargo")
    set(built "${target_dir}/${triple}/release/lib${name}.a")
    set(stripped "${CMAKE_CURRENT_BINARY_DIR}/lib${name}.a")
    # One command: what cargo-c made is not changed, and cargo.d names the crate's sources.
    add_custom_command(
        OUTPUT "${stripped}"
        COMMAND "${CARGO_CBUILD}" cbuild --release --library-type staticlib
                --manifest-path "${arg_MANIFEST}" --target-dir "${target_dir}"
        COMMAND "${STRIP_HOOK}" strip "${built}" --header "${arg_HEADER}" -o "${stripped}"
                ${arg_EXTRA}
        COMMAND "${CMAKE_COMMAND}" -DFROM=${target_dir}/${triple}/release/lib${name}.d
                -DTO=${stripped}.d -DOUTPUT=${stripped}
                -P "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/depfile.cmake"
        DEPENDS "${arg_MANIFEST}" "${arg_HEADER}"
        DEPFILE "${stripped}.d"
        COMMENT "Building and stripping lib${name}.a"
        VERBATIM)
    add_custom_target(${name}-stripped DEPENDS "${stripped}")
    add_library(${name} STATIC IMPORTED GLOBAL)
    add_dependencies(${name} ${name}-stripped)
    get_filename_component(include "${arg_HEADER}" DIRECTORY)
    set_target_properties(${name} PROPERTIES
        IMPORTED_LOCATION "${stripped}"
        INTERFACE_INCLUDE_DIRECTORIES "${include}"
        INTERFACE_LINK_LIBRARIES "${libraries}")
endfunction()
