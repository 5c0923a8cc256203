# Target `wire`: C from schemas/*.proto, generated into the build folder; include as "schemas/<name>.pb-c.h".
function(espalier_wire)
    file(GLOB protos CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/schemas/*.proto)
    if(NOT protos)
        add_library(wire INTERFACE)
        return()
    endif()
    set(out ${CMAKE_BINARY_DIR}/generated)
    file(MAKE_DIRECTORY ${out})
    set(made "")
    foreach(proto ${protos})
        get_filename_component(name ${proto} NAME_WE)
        set(c ${out}/schemas/${name}.pb-c.c)
        add_custom_command(OUTPUT ${c} ${out}/schemas/${name}.pb-c.h
            COMMAND ${PROTOC_C} --proto_path=${CMAKE_SOURCE_DIR} --c_out=${out} ${proto}
            DEPENDS ${proto} COMMENT "protoc-c ${name}.proto" VERBATIM)
        list(APPEND made ${c} ${out}/schemas/${name}.pb-c.h)
    endforeach()
    add_library(wire STATIC ${made})
    target_include_directories(wire SYSTEM PUBLIC ${out})
    target_link_libraries(wire PUBLIC PkgConfig::PROTOBUFC PRIVATE es_flags)
    target_compile_options(wire PRIVATE -w) # generated
endfunction()
