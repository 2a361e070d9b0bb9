include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/pipesched)
foreach(part IN ITEMS core mpi launch cuda nccl)
  install(TARGETS pipesched_${part} EXPORT pipesched-${part} FILE_SET HEADERS)
  install(EXPORT pipesched-${part} NAMESPACE pipesched:: DESTINATION ${package_dir})
endforeach()
install(FILES LICENSE include/pipesched/CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
if(PIPESCHED_IO)
  install(TARGETS pipesched_pipesched EXPORT pipesched-io FILE_SET HEADERS)
  install(EXPORT pipesched-io NAMESPACE pipesched:: DESTINATION ${package_dir})
  install(FILES include/pipesched/io/schedule.schema.json include/pipesched/io/costs.schema.json
                include/pipesched/io/model.schema.json
          DESTINATION ${CMAKE_INSTALL_DATADIR}/pipesched)
endif()
if(TARGET pipesched_tool)
  install(TARGETS pipesched_tool)
endif()

configure_package_config_file(cmake/pipesched-config.cmake.in pipesched-config.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(pipesched-config-version.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/pipesched-config.cmake ${PROJECT_BINARY_DIR}/pipesched-config-version.cmake
              cmake/FindNCCL.cmake cmake/Findasio.cmake
        DESTINATION ${package_dir})
