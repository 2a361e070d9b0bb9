include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS pipesched_core pipesched_pipesched EXPORT pipesched-targets FILE_SET HEADERS)
install(FILES include/pipesched/io/schedule.schema.json DESTINATION ${CMAKE_INSTALL_DATADIR}/pipesched)
if(PIPESCHED_EXAMPLES)
  install(TARGETS pipesched_tool)
endif()

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/pipesched)
install(EXPORT pipesched-targets NAMESPACE pipesched:: DESTINATION ${package_dir})
configure_package_config_file(cmake/pipesched-config.cmake.in pipesched-config.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(pipesched-config-version.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/pipesched-config.cmake ${PROJECT_BINARY_DIR}/pipesched-config-version.cmake
        DESTINATION ${package_dir})
