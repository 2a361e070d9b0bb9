# Runs the portfile of the vcpkg port with stand-ins for vcpkg's functions, which do what vcpkg's own do with these arguments, and
# refuse arguments that vcpkg's own do not take.
#
#   cmake -DPORT_DIR=FOLDER -DWORK=FOLDER -DFEATURES=core;io -P vcpkg.cmake    makes the package WORK/package
cmake_minimum_required(VERSION 3.25)
file(READ ${PORT_DIR}/vcpkg.json manifest)
string(JSON PORT GET "${manifest}" name)
set(CURRENT_PACKAGES_DIR ${WORK}/package)
set(build ${WORK}/${PORT}-build)

function(run)
  execute_process(COMMAND ${ARGV} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

function(vcpkg_check_features)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" OUT_FEATURE_OPTIONS FEATURES)
  refuse_rest(vcpkg_check_features)
  set(options "")
  while(arg_FEATURES)
    list(POP_FRONT arg_FEATURES feature option)
    string(JSON description GET "${manifest}" features ${feature} description)  # fails if vcpkg.json has no such feature
    if(feature IN_LIST FEATURES)
      list(APPEND options -D${option}=ON)
    else()
      list(APPEND options -D${option}=OFF)
    endif()
  endwhile()
  set(${arg_OUT_FEATURE_OPTIONS} ${options} PARENT_SCOPE)
endfunction()

function(vcpkg_cmake_configure)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" SOURCE_PATH OPTIONS)
  refuse_rest(vcpkg_cmake_configure)
  run(${CMAKE_COMMAND} -S ${arg_SOURCE_PATH} -B ${build} -G Ninja -DCMAKE_BUILD_TYPE=Release -DFETCHCONTENT_FULLY_DISCONNECTED=ON
      -DCMAKE_INSTALL_PREFIX=${CURRENT_PACKAGES_DIR} -DCMAKE_INSTALL_LIBDIR=lib ${arg_OPTIONS})
endfunction()

function(vcpkg_cmake_install)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "" "")
  refuse_rest(vcpkg_cmake_install)
  run(${CMAKE_COMMAND} --build ${build} --target install)
endfunction()

# Moves the package files of CMake to share/<port>, from where their prefix is two folders up.
function(vcpkg_cmake_config_fixup)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" CONFIG_PATH "")
  refuse_rest(vcpkg_cmake_config_fixup)
  file(GLOB files ${CURRENT_PACKAGES_DIR}/${arg_CONFIG_PATH}/*)
  if(NOT files)
    message(FATAL_ERROR "no files in ${arg_CONFIG_PATH}")
  endif()
  file(COPY ${files} DESTINATION ${CURRENT_PACKAGES_DIR}/share/${PORT})
  file(REMOVE_RECURSE ${CURRENT_PACKAGES_DIR}/${arg_CONFIG_PATH})
  file(GLOB files ${CURRENT_PACKAGES_DIR}/share/${PORT}/*.cmake)
  foreach(file IN LISTS files)
    file(READ ${file} text)
    string(REGEX REPLACE "(get_filename_component\\(_IMPORT_PREFIX \"\\\${CMAKE_CURRENT_LIST_FILE}\" PATH\\)\n)(get_filename_component\\(_IMPORT_PREFIX \"\\\${_IMPORT_PREFIX}\" PATH\\)\n)+"
           "\\1\\2\\2" text "${text}")
    string(REPLACE "/../../../\" ABSOLUTE" "/../../\" ABSOLUTE" text "${text}")
    file(WRITE ${file} "${text}")
  endforeach()
endfunction()

function(vcpkg_install_copyright)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "" FILE_LIST)
  refuse_rest(vcpkg_install_copyright)
  configure_file(${arg_FILE_LIST} ${CURRENT_PACKAGES_DIR}/share/${PORT}/copyright COPYONLY)
endfunction()

macro(refuse_rest name)
  if(DEFINED arg_UNPARSED_ARGUMENTS OR DEFINED arg_KEYWORDS_MISSING_VALUES)
    message(FATAL_ERROR "${name}: ${arg_UNPARSED_ARGUMENTS} ${arg_KEYWORDS_MISSING_VALUES}")
  endif()
endmacro()

include(${PORT_DIR}/portfile.cmake)

# The rules that vcpkg checks after a build, as far as a header library can break them, and the version.
foreach(path IN ITEMS share/${PORT}/copyright share/${PORT}/usage share/${PORT}/${PORT}-config.cmake include)
  if(NOT EXISTS ${CURRENT_PACKAGES_DIR}/${path})
    message(FATAL_ERROR "the package has no ${path}")
  endif()
endforeach()
foreach(path IN ITEMS lib debug share/doc)
  if(EXISTS ${CURRENT_PACKAGES_DIR}/${path})
    message(FATAL_ERROR "the package has ${path}, which is empty or belongs elsewhere")
  endif()
endforeach()
string(JSON version GET "${manifest}" version)
set(PACKAGE_FIND_VERSION ${version})
include(${CURRENT_PACKAGES_DIR}/share/${PORT}/${PORT}-config-version.cmake)
if(NOT PACKAGE_VERSION VERSION_EQUAL version)
  message(FATAL_ERROR "vcpkg.json says version ${version}, the library ${PACKAGE_VERSION}")
endif()
