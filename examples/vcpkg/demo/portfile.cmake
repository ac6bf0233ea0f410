# Static only: the C API in one object, no Rust in sight.
vcpkg_check_linkage(ONLY_STATIC_LIBRARY)

# In a port of yours: vcpkg_from_github or vcpkg_from_gitlab.
set(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../demo")

find_program(CARGO cargo REQUIRED)
find_program(STRIP_HOOK cargo-strip-hook REQUIRED)

set(target "")
if(VCPKG_CROSSCOMPILING)
    if(VCPKG_TARGET_IS_LINUX AND VCPKG_TARGET_ARCHITECTURE STREQUAL "arm64")
        set(target --target aarch64-unknown-linux-gnu)
    elseif(VCPKG_TARGET_IS_OSX AND VCPKG_TARGET_ARCHITECTURE STREQUAL "arm64")
        set(target --target aarch64-apple-darwin)
    elseif(VCPKG_TARGET_IS_OSX AND VCPKG_TARGET_ARCHITECTURE STREQUAL "x64")
        set(target --target x86_64-apple-darwin)
    else()
        message(FATAL_ERROR "no Rust target is known for ${TARGET_TRIPLET}")
    endif()
endif()

# Builds, installs, and strips what was installed.
function(install_variant profile prefix)
    vcpkg_execute_required_process(
        COMMAND "${STRIP_HOOK}" cinstall --locked --profile "${profile}"
                --library-type staticlib ${target}
                --manifest-path "${SOURCE_PATH}/Cargo.toml"
                --target-dir "${CURRENT_BUILDTREES_DIR}/${TARGET_TRIPLET}-cargo"
                --prefix "${prefix}" --libdir "${prefix}/lib" --includedir "${prefix}/include"
        WORKING_DIRECTORY "${CURRENT_BUILDTREES_DIR}"
        LOGNAME "cargo-${TARGET_TRIPLET}-${profile}")
endfunction()

if(NOT VCPKG_BUILD_TYPE STREQUAL "debug")
    install_variant(release "${CURRENT_PACKAGES_DIR}")
endif()
if(NOT VCPKG_BUILD_TYPE STREQUAL "release")
    install_variant(dev "${CURRENT_PACKAGES_DIR}/debug")
    file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug/include")
endif()

vcpkg_fixup_pkgconfig()
vcpkg_install_copyright(FILE_LIST "${CMAKE_CURRENT_LIST_DIR}/../../../LICENSE-MIT")
