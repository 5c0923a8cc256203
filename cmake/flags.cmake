# Warnings and code generation shared by every target, as the interface target `es_flags`.
add_library(es_flags INTERFACE)
target_include_directories(es_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_definitions(es_flags INTERFACE _GNU_SOURCE)
# A program loads only the libraries it calls: a coordinator built with CUDA runs on a host without.
target_link_options(es_flags INTERFACE -Wl,--as-needed)

set(es_warnings -Wall -Wextra -Wshadow -Wstrict-prototypes -Wpointer-arith -Wcast-qual)
if(CMAKE_C_COMPILER_ID STREQUAL GNU) # other compilers know other warnings; theirs are shown, not fatal
    list(APPEND es_warnings -Werror -Wno-format-truncation) # snprintf is used for the cutting it does
endif()
# fp-contract: fused multiply-add wherever the machine has it; no other liberty is taken with floating point, results stay reproducible.
target_compile_options(es_flags INTERFACE
    $<$<COMPILE_LANGUAGE:C>:${es_warnings}>
    $<$<COMPILE_LANGUAGE:C>:-fno-math-errno>
    $<$<COMPILE_LANGUAGE:C>:-ffp-contract=fast>)

if(ESPALIER_SANITIZE)
    set(san -fsanitize=${ESPALIER_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
    target_compile_options(es_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:${san}>)
    target_link_options(es_flags INTERFACE ${san})
    target_compile_definitions(es_flags INTERFACE ES_SANITIZE=1)
endif()
if(ESPALIER_FUZZ)
    if(NOT CMAKE_C_COMPILER_ID MATCHES Clang)
        message(FATAL_ERROR "ESPALIER_FUZZ needs clang: configure with CC=clang")
    endif()
    set(san -fsanitize=address,undefined -fno-sanitize-recover=all)
    target_compile_options(es_flags INTERFACE ${san} -fsanitize=fuzzer-no-link)
    target_link_options(es_flags INTERFACE ${san})
endif()
