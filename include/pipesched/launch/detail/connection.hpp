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

inline constexpr std::size_t max_frame = std::size_t{1} << 28, max_greeting = 512;

/// On the wire a frame is the length of its text (4 bytes, in this machine's order), its kind and the text.
inline std::string wire_of(frame::kind kind, std::string_view text) {
  const auto length = static_cast<std::uint32_t>(text.size());
  std::string bytes(sizeof length, 0);
  std::memcpy(bytes.data(), &length, sizeof length);
  bytes.push_back(static_cast<char>(kind));
  return bytes.append(text);
}

/// Notices are small and urgent; a host that has disappeared is noticed within some twenty seconds.
inline void prepare(asio::ip::tcp::socket& socket) {
  const auto set = [&](int level, int name, int value) {
    ::setsockopt(socket.native_handle(), level, name, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 5), set(IPPROTO_TCP, TCP_KEEPINTVL, 5), set(IPPROTO_TCP, TCP_KEEPCNT, 3);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 20000);
}

/// All functions run in the thread of the socket's io_context. It lives as long as an operation of it is pending.
class connection : public std::enable_shared_from_this<connection> {
 public:
  std::size_t longest = max_frame;         ///< longest text that is read
  std::function<bool(frame)> on_frame;     ///< false: the connection is closed
  std::function<void()> on_close = [] {};  ///< called once, at whichever end it is closed

  explicit connection(asio::ip::tcp::socket socket) : socket_(std::move(socket)) { prepare(socket_); }

  void read() {
    asio::async_read(socket_, asio::buffer(head_), [self = shared_from_this()](std::error_code error, std::size_t) {
      std::uint32_t length = 0;
      std::memcpy(&length, self->head_.data(), sizeof length);
      if (error || length > self->longest) return self->close();
      self->read_text(length);
    });
  }
  void send(frame::kind kind, std::string_view text) {
    if (!socket_.is_open()) return;
    out_.push_back(wire_of(kind, text));
    if (out_.size() == 1) write();
  }
  bool idle() const { return out_.empty(); }
  /// Closes it once everything has been sent.
  void finish() {
    finishing_ = true;
    if (out_.empty()) close();
  }
  void close() {
    if (!socket_.is_open()) return;
    std::error_code ignored;
    static_cast<void>(socket_.shutdown(asio::ip::tcp::socket::shutdown_both, ignored));
    static_cast<void>(socket_.close(ignored));
    std::exchange(on_close, [] {})();
  }

 private:
  void read_text(std::size_t length) {
    text_.resize(length);
    asio::async_read(socket_, asio::buffer(text_), [self = shared_from_this()](std::error_code error, std::size_t) {
      if (error) return self->close();
      if (!self->on_frame({static_cast<frame::kind>(self->head_.back()), std::move(self->text_)}))
        return self->finish();
      self->text_.clear();
      self->read();
    });
  }
  void write() {
    asio::async_write(socket_, asio::buffer(out_.front()),
                      [self = shared_from_this()](std::error_code error, std::size_t) {
                        if (error) return self->close();
                        self->out_.pop_front();
                        if (!self->out_.empty()) return self->write();
                        if (self->finishing_) self->close();
                      });
  }

  asio::ip::tcp::socket socket_;
  std::array<char, sizeof(std::uint32_t) + 1> head_{};
  std::string text_;
  std::deque<std::string> out_;
  bool finishing_ = false;
};

}  // namespace pipesched::detail
