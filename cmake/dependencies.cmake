# Uses installed packages, and fetches a pinned release of each missing one.
include(FetchContent)
set(FETCHCONTENT_TRY_FIND_PACKAGE_MODE OPT_IN)

FetchContent_Declare(fmt GIT_REPOSITORY https://github.com/fmtlib/fmt.git GIT_TAG 9.1.0
                     FIND_PACKAGE_ARGS 9)
FetchContent_Declare(nlohmann_json GIT_REPOSITORY https://github.com/nlohmann/json.git GIT_TAG v3.11.2
                     FIND_PACKAGE_ARGS 3.11)
FetchContent_Declare(doctest GIT_REPOSITORY https://github.com/doctest/doctest.git GIT_TAG v2.4.9
                     FIND_PACKAGE_ARGS 2.4)
FetchContent_Declare(benchmark GIT_REPOSITORY https://github.com/google/benchmark.git GIT_TAG v1.7.1
                     FIND_PACKAGE_ARGS 1.7)
FetchContent_Declare(CLI11 GIT_REPOSITORY https://github.com/CLIUtils/CLI11.git GIT_TAG v2.1.2
                     FIND_PACKAGE_ARGS 2.1)

# Alternative without installing or fetching: headers in one folder that has fmt/, nlohmann/, CLI/ and doctest/.
set(PIPESCHED_HEADERS "" CACHE PATH "A folder with the headers of fmt, nlohmann_json, CLI11 and doctest, used instead of packages")
if(PIPESCHED_HEADERS)
  foreach(library IN ITEMS fmt::fmt nlohmann_json::nlohmann_json CLI11::CLI11 doctest::doctest)
    add_library(${library} INTERFACE IMPORTED GLOBAL)
    target_include_directories(${library} SYSTEM INTERFACE ${PIPESCHED_HEADERS})
  endforeach()
  target_compile_definitions(fmt::fmt INTERFACE FMT_HEADER_ONLY)
  set(PIPESCHED_INSTALL OFF)
  return()
endif()

if(PIPESCHED_INSTALL)
  set(FMT_INSTALL ON)      # a fetched copy is installed along, as the exported targets name it
  set(JSON_Install ON)
endif()
# Fetching needs git. Without it one sentence names all missing packages.
find_package(Git QUIET)
if(PIPESCHED_IO AND NOT Git_FOUND)
  set(packages fmt 9 libfmt-dev nlohmann_json 3.11 nlohmann-json3-dev)
  if(PIPESCHED_EXAMPLES OR PIPESCHED_TESTS)
    list(APPEND packages CLI11 2.1 libcli11-dev)
  endif()
  if(PIPESCHED_TESTS)
    list(APPEND packages doctest 2.4 doctest-dev)
  endif()
  if(PIPESCHED_BENCHES)
    list(APPEND packages benchmark 1.7 libbenchmark-dev)
  endif()
  set(missing "")
  while(packages)
    list(POP_FRONT packages package version debian)
    find_package(${package} ${version} QUIET)
    if(NOT ${package}_FOUND AND NOT TARGET ${package}::${package} AND NOT FETCHCONTENT_SOURCE_DIR_${package})
      list(APPEND missing "${package} (Debian: ${debian})")
    endif()
  endwhile()
  if(missing)
    list(JOIN missing ", " missing)
    message(FATAL_ERROR "pipesched needs ${missing}: install it, or git, with which CMake fetches it; PIPESCHED_IO=OFF needs neither")
  endif()
endif()

if(PIPESCHED_IO)
  FetchContent_MakeAvailable(fmt nlohmann_json)
  if(PIPESCHED_EXAMPLES OR PIPESCHED_TESTS)
    FetchContent_MakeAvailable(CLI11)
  endif()
endif()
