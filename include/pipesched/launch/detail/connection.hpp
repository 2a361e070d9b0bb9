// SPDX-License-Identifier: MIT
#pragma once

// A TCP connection that carries frames, over Asio.

#ifndef ASIO_STANDALONE
#define ASIO_STANDALONE
#endif
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <asio.hpp>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "pipesched/launch/detail/job.hpp"

namespace pipesched::detail {

inline constexpr std::size_t max_greeting = 512;

/// On the wire a frame is the length of its text (4 bytes, in this machine's order), its kind and the text.
inline std::string wire_of(frame::kind kind, std::string_view text) {
  const auto length = static_cast<std::uint32_t>(text.size());
  std::string bytes(sizeof length, 0);
  std::memcpy(bytes.data(), &length, sizeof length);
  bytes.push_back(static_cast<char>(kind));
  return bytes.append(text);
}

/// All functions run in the thread of the socket's io_context. It lives as long as an operation of it is pending.
class connection : public std::enable_shared_from_this<connection> {
 public:
  std::size_t longest = max_frame;  ///< longest text that is read
  /// False: the connection is closed. At last frame::end, whichever end closes it.
  std::function<bool(frame)> on_frame;

  /// Notices are small and urgent; a host that has disappeared is noticed within some twenty seconds.
  explicit connection(asio::ip::tcp::socket socket) : socket_(std::move(socket)) {
    constexpr int options[][3] = {{IPPROTO_TCP, TCP_NODELAY, 1},  {SOL_SOCKET, SO_KEEPALIVE, 1},
                                  {IPPROTO_TCP, TCP_KEEPIDLE, 5}, {IPPROTO_TCP, TCP_KEEPINTVL, 5},
                                  {IPPROTO_TCP, TCP_KEEPCNT, 3},  {IPPROTO_TCP, TCP_USER_TIMEOUT, 20000}};
    for (const auto& [level, name, value] : options)
      ::setsockopt(socket_.native_handle(), level, name, &value, sizeof value);
  }

  void read() {
    const std::array head = {asio::buffer(&length_, sizeof length_), asio::buffer(&in_.is, sizeof in_.is)};
    asio::async_read(socket_, head, [self = shared_from_this()](std::error_code error, std::size_t) {
      if (error || self->length_ > self->longest) return self->close();
      self->in_.text.resize(self->length_);
      asio::async_read(self->socket_, asio::buffer(self->in_.text), [self](std::error_code failed, std::size_t) {
        if (failed || !self->on_frame(std::exchange(self->in_, {}))) return self->close();
        self->read();
      });
    });
  }
  void send(const frame& f) {
    if (!socket_.is_open()) return;
    out_.push_back(wire_of(f.is, f.text));
    if (out_.size() == 1) write();
  }
  // Once.
  void close() {
    if (!socket_.is_open()) return;
    std::error_code ignored;
    static_cast<void>(socket_.shutdown(asio::ip::tcp::socket::shutdown_both, ignored));
    static_cast<void>(socket_.close(ignored));
    on_frame({frame::end});
  }

 private:
  void write() {
    asio::async_write(socket_, asio::buffer(out_.front()),
                      [self = shared_from_this()](std::error_code error, std::size_t) {
                        if (error) return self->close();
                        self->out_.pop_front();
                        if (!self->out_.empty()) self->write();
                      });
  }

  asio::ip::tcp::socket socket_;
  std::uint32_t length_ = 0;
  frame in_{};
  std::deque<std::string> out_;
};

}  // namespace pipesched::detail
