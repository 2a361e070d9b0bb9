# asio::asio: standalone Asio, headers alone (Debian: libasio-dev).
find_path(ASIO_INCLUDE_DIR asio.hpp)
mark_as_advanced(ASIO_INCLUDE_DIR)
set(asio_FOUND FALSE)
if(ASIO_INCLUDE_DIR)
  set(asio_FOUND TRUE)
  if(NOT TARGET asio::asio)
    add_library(asio::asio INTERFACE IMPORTED)
    set_target_properties(asio::asio PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${ASIO_INCLUDE_DIR}"
                          INTERFACE_COMPILE_DEFINITIONS ASIO_STANDALONE)
  endif()
endif()
