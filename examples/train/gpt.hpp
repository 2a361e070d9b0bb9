// SPDX-License-Identifier: MIT
#pragma once

// A small GPT, cut into stages. Every layer has a forward and a backward in two halves: backward_input (I) computes the
// gradient of the input and stores a context; backward_weight (W) later uses the context to add the weight gradients.
//
//   embedding    first stage: the sum of a character's and a position's embedding
//   block        x += projection(attention(norm(x))), x += down(gelu(up(norm(x))))
//   head         last stage: norm, one linear layer, cross entropy averaged over the characters of a micro-batch
//
// Matrices are dense and row-major, with one row per character. Functions accumulate into their outputs unless they say
// otherwise.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <vector>

namespace train {

struct model_sizes {
  std::size_t vocabulary = 0, layers = 8, width = 48, heads = 4;
  std::size_t context = 32;  ///< characters per sequence
  std::size_t batch = 4;     ///< sequences per micro-batch

  std::size_t rows() const { return batch * context; }  ///< characters per micro-batch
};

template <typename Real>
std::vector<Real> matrix(const model_sizes& s, std::size_t columns) {
  return std::vector<Real>(s.rows() * columns);
}

/// c += a * b, where a is rows x inner, or stored transposed; b is inner x columns.
template <typename Real>
void multiply(const Real* a, bool transposed, const Real* b, Real* c, std::size_t rows, std::size_t inner,
              std::size_t columns) {
  constexpr std::size_t tile = 16;  // columns, whose sums stay in registers
  const std::size_t row = transposed ? 1 : inner, next = transposed ? rows : 1;
  for (std::size_t i = 0; i < rows; ++i) {
    const Real* from = a + i * row;
    std::size_t j = 0;
    for (; j + tile <= columns; j += tile) {
      Real sum[tile]{};
      for (std::size_t k = 0; k < inner; ++k)
        for (std::size_t t = 0; t < tile; ++t) sum[t] += from[k * next] * b[k * columns + j + t];
      for (std::size_t t = 0; t < tile; ++t) c[i * columns + j + t] += sum[t];
    }
    for (; j < columns; ++j) {
      Real sum = 0;
      for (std::size_t k = 0; k < inner; ++k) sum += from[k * next] * b[k * columns + j];
      c[i * columns + j] += sum;
    }
  }
}

template <typename Real>
Real dot(const Real* a, const Real* b, std::size_t n) {
  Real sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

template <typename Real>
void add(const Real* from, Real* to, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) to[i] += from[i];
}

template <typename Range>
void zero(Range&& of) {
  std::fill(of.begin(), of.end(), 0);
}

/// Replaces n numbers by their softmax.
template <typename Real>
void softmax(Real* x, std::size_t n) {
  using std::exp;
  const Real most = *std::max_element(x, x + n);
  Real sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += x[i] = exp(x[i] - most);
  for (std::size_t i = 0; i < n; ++i) x[i] /= sum;
}

/// All weights of a stage and all their gradients, each in one contiguous block for the optimizer and the exchange between
/// replicas.
template <typename Real>
struct weight_store {
  std::vector<Real> values, gradients;
};

/// Weights of one layer: a range of the store.
template <typename Real>
class weights {
 public:
  weights(weight_store<Real>& store, std::size_t count) : store_(&store), at_(store.values.size()), count_(count) {
    store.values.resize(at_ + count), store.gradients.resize(at_ + count);
  }
  Real* values() const { return store_->values.data() + at_; }
  Real* gradients() const { return store_->gradients.data() + at_; }

  /// Initializes the weights with uniform numbers of this standard deviation.
  void randomize(std::mt19937_64& random, double deviation) const {
    for (std::size_t i = 0; i < count_; ++i)
      values()[i] =
          static_cast<Real>((std::ldexp(static_cast<double>(random() >> 11), -52) - 1) * std::sqrt(3) * deviation);
  }

 private:
  weight_store<Real>* store_;
  std::size_t at_, count_;
};

/// y += x * matrix + bias.
template <typename Real>
class linear {
 public:
  linear(weight_store<Real>& store, std::size_t in, std::size_t out, std::mt19937_64& random, double gain = 1)
      : in_(in), out_(out), matrix_(store, in * out), bias_(store, out), transposed_(in * out) {
    matrix_.randomize(random, gain / std::sqrt(static_cast<double>(in)));
  }
  void forward(const Real* x, Real* y, std::size_t rows) const {
    for (std::size_t r = 0; r < rows; ++r) add(bias_.values(), y + r * out_, out_);
    multiply(x, false, matrix_.values(), y, rows, in_, out_);
  }
  void backward_input(const Real* dy, Real* dx, std::size_t rows) {
    for (std::size_t i = 0; i < in_; ++i)
      for (std::size_t j = 0; j < out_; ++j) transposed_[j * in_ + i] = matrix_.values()[i * out_ + j];
    multiply(dy, false, transposed_.data(), dx, rows, out_, in_);
  }
  void backward_weight(const Real* x, const Real* dy, std::size_t rows) {
    multiply(x, true, dy, matrix_.gradients(), in_, rows, out_);
    for (std::size_t r = 0; r < rows; ++r) add(dy + r * out_, bias_.gradients(), out_);
  }

 private:
  std::size_t in_, out_;
  weights<Real> matrix_, bias_;
  std::vector<Real> transposed_;
};

/// Layer norm: (row - mean) / deviation. It has no scale and shift, as the linear layer after each norm provides both.
template <typename Real>
struct layer_norm {
  explicit layer_norm(const model_sizes& of) : s(of) {}
  model_sizes s;
  std::vector<Real> y = matrix<Real>(s, s.width),
                    inverse = matrix<Real>(s, 1);  // the result; 1 / deviation of each row

  void forward(const Real* x) {  // writes y
    using std::sqrt;
    const auto width = static_cast<Real>(s.width);
    for (std::size_t r = 0; r < s.rows(); ++r, x += s.width) {
      Real mean = 0, variance = 0;
      for (std::size_t i = 0; i < s.width; ++i) mean += x[i] / width;
      for (std::size_t i = 0; i < s.width; ++i) variance += (x[i] - mean) * (x[i] - mean) / width;
      inverse[r] = 1 / sqrt(variance + Real(1e-5));
      for (std::size_t i = 0; i < s.width; ++i) y[r * s.width + i] = (x[i] - mean) * inverse[r];
    }
  }
  void backward_input(const Real* dy, Real* dx) const {
    const auto width = static_cast<Real>(s.width);
    for (std::size_t r = 0; r < s.rows(); ++r, dy += s.width, dx += s.width) {
      const Real *row = &y[r * s.width], along = dot(dy, row, s.width) / width;
      Real mean = 0;
      for (std::size_t i = 0; i < s.width; ++i) mean += dy[i] / width;
      for (std::size_t i = 0; i < s.width; ++i) dx[i] += (dy[i] - mean - row[i] * along) * inverse[r];
    }
  }
};

/// Causal self-attention. It has no weights, so its whole backward is I.
template <typename Real>
class attention {
 public:
  explicit attention(const model_sizes& s) : s_(s), size_(s.width / s.heads) {}

  /// @param qkv  query, key and value of every row, each for all heads
  /// @param probabilities  heads x context x context numbers per sequence
  void forward(const Real* qkv, Real* probabilities, Real* y) const {
    each_query([&](std::size_t query, std::size_t first, std::size_t head, std::size_t p) {
      const std::size_t seen = query - first + 1;
      for (std::size_t k = 0; k < seen; ++k)
        probabilities[p + k] = dot(qkv + at(query, 0, head), qkv + at(first + k, 1, head), size_) * scale();
      softmax(probabilities + p, seen);
      for (std::size_t k = 0; k < seen; ++k)
        for (std::size_t i = 0; i < size_; ++i)
          y[query * s_.width + head * size_ + i] += probabilities[p + k] * qkv[at(first + k, 2, head) + i];
    });
  }
  void backward_input(const Real* qkv, const Real* probabilities, const Real* y, const Real* dy, Real* dqkv) const {
    each_query([&](std::size_t query, std::size_t first, std::size_t head, std::size_t p) {
      const std::size_t out = query * s_.width + head * size_;
      const Real mean =
          dot(dy + out, y + out, size_);  // mean of the probabilities' gradients, weighted by the probabilities
      for (std::size_t k = 0; k <= query - first; ++k) {
        const Real probability = probabilities[p + k];
        const std::size_t q = at(query, 0, head), key = at(first + k, 1, head), value = at(first + k, 2, head);
        const Real score = probability * (dot(dy + out, qkv + value, size_) - mean) * scale();
        for (std::size_t i = 0; i < size_; ++i) {
          dqkv[q + i] += score * qkv[key + i];
          dqkv[key + i] += score * qkv[q + i];
          dqkv[value + i] += probability * dy[out + i];
        }
      }
    });
  }

 private:
  Real scale() const {
    using std::sqrt;
    return 1 / sqrt(static_cast<Real>(size_));
  }
  std::size_t at(std::size_t row, std::size_t which, std::size_t head) const {
    return (row * 3 + which) * s_.width + head * size_;
  }
  // Calls f(row of the query, first row of its sequence, head, offset of its probabilities).
  template <typename F>
  void each_query(F&& f) const {
    for (std::size_t row = 0; row < s_.rows(); ++row)
      for (std::size_t head = 0; head < s_.heads; ++head)
        f(row, row / s_.context * s_.context, head, (row * s_.heads + head) * s_.context);
  }
  model_sizes s_;
  std::size_t size_;  // width of a head
};

template <typename Real>
class block {
 public:
  struct activation {  // stored by F
    explicit activation(const model_sizes& of) : s(of) {}
    model_sizes s;
    layer_norm<Real> norm1{s}, norm2{s};
    std::vector<Real> qkv = matrix<Real>(s, 3 * s.width), mixed = matrix<Real>(s, s.width);
    std::vector<Real> probabilities = matrix<Real>(s, s.heads* s.context);
    std::vector<Real> slope = matrix<Real>(s, 4 * s.width), gelu = slope;  // derivative of GELU for I, its value for W
  };
  struct context {  // stored by I for W: the gradient of every linear layer's output
    explicit context(const model_sizes& of) : s(of) {}
    model_sizes s;
    std::vector<Real> qkv = matrix<Real>(s, 3 * s.width), projection = matrix<Real>(s, s.width);
    std::vector<Real> up = matrix<Real>(s, 4 * s.width), down = projection;
  };

  block(weight_store<Real>& store, const model_sizes& s, std::mt19937_64&& random)
      : rows_(s.rows()),
        qkv_(store, s.width, 3 * s.width, random),
        attention_(s),
        projection_(store, s.width, s.width, random),
        up_(store, s.width, 4 * s.width, random),
        down_(store, 4 * s.width, s.width, random),
        between_(s.rows() * s.width) {}

  void forward(activation& kept, Real* x) const {  // updates x in place: both halves are residual
    using std::erf, std::exp;
    kept.norm1.forward(x);
    zero(kept.qkv), zero(kept.mixed);
    qkv_.forward(kept.norm1.y.data(), kept.qkv.data(), rows_);
    attention_.forward(kept.qkv.data(), kept.probabilities.data(), kept.mixed.data());
    projection_.forward(kept.mixed.data(), x, rows_);
    kept.norm2.forward(x);
    zero(kept.gelu);
    up_.forward(kept.norm2.y.data(), kept.gelu.data(), rows_);
    for (std::size_t i = 0; i < kept.gelu.size(); ++i) {
      const Real v = kept.gelu[i],
                 below = (1 + erf(v * Real(0.70710678118654752))) / 2;  // normal distribution function
      kept.slope[i] = below + v * exp(-v * v / 2) * Real(0.39894228040143268);
      kept.gelu[i] = v * below;
    }
    down_.forward(kept.gelu.data(), x, rows_);
  }
  void backward_input(const activation& kept, context& due, Real* d) {  // updates d in place
    std::copy_n(d, due.down.size(), due.down.data());
    zero(due.up), zero(between_);
    down_.backward_input(d, due.up.data(), rows_);
    for (std::size_t i = 0; i < due.up.size(); ++i) due.up[i] *= kept.slope[i];
    up_.backward_input(due.up.data(), between_.data(), rows_);
    kept.norm2.backward_input(between_.data(), d);
    std::copy_n(d, due.projection.size(), due.projection.data());
    zero(due.qkv), zero(between_);
    projection_.backward_input(d, between_.data(), rows_);
    attention_.backward_input(kept.qkv.data(), kept.probabilities.data(), kept.mixed.data(), between_.data(),
                              due.qkv.data());
    zero(between_);
    qkv_.backward_input(due.qkv.data(), between_.data(), rows_);
    kept.norm1.backward_input(between_.data(), d);
  }
  void backward_weight(const activation& kept, const context& due) {
    qkv_.backward_weight(kept.norm1.y.data(), due.qkv.data(), rows_);
    projection_.backward_weight(kept.mixed.data(), due.projection.data(), rows_);
    up_.backward_weight(kept.norm2.y.data(), due.up.data(), rows_);
    down_.backward_weight(kept.gelu.data(), due.down.data(), rows_);
  }

 private:
  std::size_t rows_;
  linear<Real> qkv_;
  attention<Real> attention_;
  linear<Real> projection_, up_, down_;
  std::vector<Real> between_;  // gradient between two layers, in I
};

/// The layers of a stage: the blocks from `begin` to `end` - 1, the embedding in the first stage and the head in the last.
struct stage_place {
  std::size_t begin, end;
  bool first, last;
};

/// A stage of the model.
template <typename Real>
class stage {
 public:
  // Memory for the activation (stored by F) and the context (stored by I) of a stage with at most `max_blocks` blocks.
  struct activation {
    activation(const model_sizes& of, std::size_t max_blocks) : s(of), blocks(max_blocks) {}
    model_sizes s;
    std::size_t blocks;
    std::vector<std::uint8_t> tokens{
        std::vector<std::uint8_t>(s.batch * (s.context + 1))};  // the next one is the target
    std::vector<typename block<Real>::activation> each{blocks, typename block<Real>::activation(s)};
    layer_norm<Real> norm{s};
    std::vector<Real> probabilities = matrix<Real>(s, s.vocabulary);
  };
  struct context {
    context(const model_sizes& of, std::size_t max_blocks) : s(of), blocks(max_blocks) {}
    model_sizes s;
    std::size_t blocks;
    std::vector<Real> embedded = matrix<Real>(s, s.width), norm = embedded, scores = matrix<Real>(s, s.vocabulary);
    std::vector<typename block<Real>::context> each{blocks, typename block<Real>::context(s)};
  };

  /// Weights depend on the seed and the layer alone, so the model is the same for any number of stages.
  stage(const model_sizes& s, const stage_place& at, std::uint64_t seed) : s_(s), at_(at) {
    const auto random = [&](std::size_t layer) { return std::mt19937_64(seed * 1000003 + layer); };
    if (at.first) {
      auto of_embedding = random(0);
      embedding_.emplace(store_, (s.vocabulary + s.context) * s.width).randomize(of_embedding, 0.5);
    }
    for (std::size_t layer = at.begin; layer < at.end; ++layer) blocks_.emplace_back(store_, s, random(layer + 1));
    if (at.last) {
      auto of_head = random(s.layers + 1);
      head_.emplace(store_, s.width, s.vocabulary, of_head,
                    0.3);  // small weights: the first loss is near ln(vocabulary)
    }
  }
  stage(const stage&) = delete;  // its layers refer to its store
  stage& operator=(const stage&) = delete;

  bool reads_characters() const { return at_.first || at_.last; }
  bool last() const { return at_.last; }
  std::size_t parameters() const { return store_.values.size(); }
  weight_store<Real>& store() { return store_; }

  /// F: reads kept.tokens (stage 0) or x, and writes x. Returns the loss of the micro-batch on the last stage, else 0.
  double forward(activation& kept, std::span<Real> x) const {
    if (at_.first) {
      zero(x);
      each_character(kept, [&](std::size_t row, std::size_t character, std::size_t position, std::size_t) {
        add(embedding_->values() + character * s_.width, &x[row * s_.width], s_.width);
        add(embedding_->values() + position * s_.width, &x[row * s_.width], s_.width);
      });
    }
    for (std::size_t i = 0; i < blocks_.size(); ++i) blocks_[i].forward(kept.each[i], x.data());
    if (!at_.last) return 0;
    kept.norm.forward(x.data());
    zero(kept.probabilities);
    head_->forward(kept.norm.y.data(), kept.probabilities.data(), s_.rows());
    double loss = 0;
    each_character(kept, [&](std::size_t row, std::size_t, std::size_t, std::size_t target) {
      softmax(&kept.probabilities[row * s_.vocabulary], s_.vocabulary);
      loss -= std::log(static_cast<double>(kept.probabilities[row * s_.vocabulary + target]));
    });
    return loss / static_cast<double>(s_.rows());
  }

  /// I: replaces the gradient of the stage's output in d by that of its input. The last stage starts from the loss.
  void backward_input(const activation& kept, context& due, std::span<Real> d) {
    if (at_.last) {
      due.scores = kept.probabilities;  // equal sizes: no allocation
      each_character(kept, [&](std::size_t row, std::size_t, std::size_t, std::size_t target) {
        due.scores[row * s_.vocabulary + target] -= 1;
      });
      for (Real& score : due.scores) score /= static_cast<Real>(s_.rows());
      zero(due.norm), zero(d);
      head_->backward_input(due.scores.data(), due.norm.data(), s_.rows());
      kept.norm.backward_input(due.norm.data(), d.data());
    }
    for (std::size_t i = blocks_.size(); i-- > 0;) blocks_[i].backward_input(kept.each[i], due.each[i], d.data());
    if (at_.first) std::copy(d.begin(), d.end(), due.embedded.begin());
  }

  /// W: accumulates the weight gradients. B is I followed by W.
  void backward_weight(const activation& kept, const context& due) {
    if (at_.last) head_->backward_weight(kept.norm.y.data(), due.scores.data(), s_.rows());
    for (std::size_t i = blocks_.size(); i-- > 0;) blocks_[i].backward_weight(kept.each[i], due.each[i]);
    if (!at_.first) return;
    each_character(kept, [&](std::size_t row, std::size_t character, std::size_t position, std::size_t) {
      add(&due.embedded[row * s_.width], embedding_->gradients() + character * s_.width, s_.width);
      add(&due.embedded[row * s_.width], embedding_->gradients() + position * s_.width, s_.width);
    });
  }

 private:
  // Calls f(row, character, row of its position in the embedding, next character).
  template <typename F>
  void each_character(const activation& kept, F&& f) const {
    for (std::size_t sequence = 0; sequence < s_.batch; ++sequence)
      for (std::size_t i = 0; i < s_.context; ++i) {
        const std::uint8_t* at = &kept.tokens[sequence * (s_.context + 1) + i];
        f(sequence * s_.context + i, at[0], s_.vocabulary + i, at[1]);
      }
  }

  model_sizes s_;
  stage_place at_;
  weight_store<Real> store_;
  std::optional<weights<Real>> embedding_;  // characters first, then positions
  std::vector<block<Real>> blocks_;
  std::optional<linear<Real>> head_;
};

/// Adam without weight decay. Source: Kingma and Ba, arXiv 1412.6980, algorithm 1.
template <typename Real>
class adam {
 public:
  explicit adam(std::size_t parameters) : mean_(parameters), square_(parameters) {}

  /// Applies one update with gradients * scale, then sets the gradients to 0.
  void step(weight_store<Real>& store, double scale, double rate) {
    using std::sqrt;
    const double mean_bias = 1 - std::pow(0.9, ++steps_), square_bias = 1 - std::pow(0.99, steps_);
    const Real factor = static_cast<Real>(rate / mean_bias), unbias = static_cast<Real>(1 / square_bias);
    for (std::size_t i = 0; i < mean_.size(); ++i) {
      const Real g = store.gradients[i] * static_cast<Real>(scale);
      mean_[i] += (g - mean_[i]) * Real(0.1);
      square_[i] += (g * g - square_[i]) * Real(0.01);
      store.values[i] -= factor * mean_[i] / (sqrt(square_[i] * unbias) + Real(1e-8));
    }
    zero(store.gradients);
  }

 private:
  std::vector<Real> mean_, square_;
  int steps_ = 0;
};

}  // namespace train
