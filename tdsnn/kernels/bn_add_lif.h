// The current of leaky integrate-and-fire neurons, batch normalisation and shortcut included, and their dynamics.
//
// Tensors are (T, M, C) with channels last; a step holds count = M * C numbers.
#pragma once
#include "channels.h"

#include <cmath>
#include <type_traits>

struct Operand {            // what is added to the current of a neuron
    const void* data;       // (T, M, C), or (M, C) if `constant`; null if there is none
    const float* mean;      // (C); null: not normalised
    const float* variance;  // (C)
    const float* weight;    // (C)
    const float* bias;      // (C)
    float epsilon;
    int32_t batch;     // mean and variance are those of `data` itself, so gradients go through them
    int32_t constant;  // the same at every step
};

struct Problem {
    int64_t steps, count, channels;
    Operand current, shortcut;
    float tau, threshold, reset, alpha;
    int32_t decay_input, soft, detach_reset, half, threads;
    const float* initial;  // (M, C) potential before the first step; null: at rest
    float *distance, *spread;  // (T, M, C) that sharpen the surrogate, see `adapted`; null: it is alpha everywhere
};

namespace {

struct Affine {  // normalised x = x * scale + offset
    Table scale, offset, mean;
    Affine(const Operand& o, int64_t channels)
        : scale(channels, [&](int64_t c) { return o.mean ? factor(o, c) : 1.0f; }),
          offset(channels, [&](int64_t c) { return o.mean ? o.bias[c] - o.mean[c] * factor(o, c) : 0.0f; }),
          mean(channels, [&](int64_t c) { return o.mean ? o.mean[c] : 0.0f; }) {}
    static float inverse_deviation(const Operand& o, int64_t c) { return 1.0f / std::sqrt(o.variance[c] + o.epsilon); }
    static float factor(const Operand& o, int64_t c) { return o.weight[c] * inverse_deviation(o, c); }
};

inline vec absolute(vec x) { return x < 0 ? -x : x; }

// Then multiplying by 1 / tau rounds as dividing does.
bool power_of_two(float tau) {
    int exponent;
    return std::frexp(tau, &exponent) == 0.5f;
}

enum Shortcut { NONE, PLAIN, NORMALISED };

// What the loops are compiled for. COMMON neurons decay their input, reset to a value without a gradient, and have a
// time constant that is a power of two; the others take the same code with its branches.
template <class Storage, int steps, bool common, Shortcut shortcut>
struct Kind {
    using S = Storage;
    static constexpr int STEPS = steps;  // 0: any number
    static constexpr bool COMMON = common;
    static constexpr Shortcut SHORTCUT = shortcut;
};

// The current of sixteen neurons at one step. Plain pointers, to be copied into each thread's registers.
template <class K>
struct Input {
    using S = typename K::S;
    const S *current, *shortcut;
    int64_t current_stride, shortcut_stride;
    const float *scale, *offset, *mean, *shortcut_scale, *shortcut_offset, *shortcut_mean;
    Input(const Problem& p, const Affine& a, const Affine& b)
        : current((const S*)p.current.data), shortcut((const S*)p.shortcut.data),
          current_stride(p.current.constant ? 0 : p.count), shortcut_stride(p.shortcut.constant ? 0 : p.count),
          scale(a.scale.data()), offset(a.offset.data()), mean(a.mean.data()), shortcut_scale(b.scale.data()),
          shortcut_offset(b.offset.data()), shortcut_mean(b.mean.data()) {}
    template <class Lanes>
    vec operator()(int64_t t, int64_t i, int64_t entry, Lanes lanes) const {
        vec x = load(current + t * current_stride + i, lanes) * load(scale + entry) + load(offset + entry);
        if (K::SHORTCUT == NONE) return x;
        vec r = load(shortcut + t * shortcut_stride + i, lanes);
        return x + (K::SHORTCUT == PLAIN ? r : r * load(shortcut_scale + entry) + load(shortcut_offset + entry));
    }
    template <class Lanes>
    vec centred(int64_t t, int64_t i, int64_t entry, Lanes lanes) const {
        return load(current + t * current_stride + i, lanes) - load(mean + entry);
    }
    template <class Lanes>
    vec shortcut_centred(int64_t t, int64_t i, int64_t entry, Lanes lanes) const {
        return load(shortcut + t * shortcut_stride + i, lanes) - load(shortcut_mean + entry);
    }
};

template <class K>
struct Dynamics {
    float tau, inverse_tau, threshold, rest, alpha, gain, leak, slope;
    float *distance, *spread;
    bool divides_, decay_input_, soft_, detach_reset_;
    Dynamics(const Problem& p)
        : tau(p.tau), inverse_tau(1 / p.tau), threshold(p.threshold), rest(p.soft ? 0 : p.reset), alpha(p.alpha),
          gain(p.decay_input ? 1 / p.tau : 1), leak(1 - 1 / p.tau), slope((float)M_PI / 2 * p.alpha),
          distance(p.distance), spread(p.spread), divides_(!power_of_two(p.tau)), decay_input_(p.decay_input), soft_(p.soft), detach_reset_(p.detach_reset) {}
    bool divides() const { return !K::COMMON && divides_; }
    bool decay_input() const { return K::COMMON || decay_input_; }
    bool soft() const { return !K::COMMON && soft_; }
    bool detach_reset() const { return K::COMMON || detach_reset_; }
    bool adaptive() const { return !K::COMMON && distance; }
    vec decayed(vec x) const { return divides() ? x / tau : x * inverse_tau; }
    vec charge(vec v, vec x) const {
        vec drift = v - rest;
        return decay_input() ? v + decayed(x - drift) : v - decayed(drift) + x;
    }
    vec fired(vec h, mask spike) const { return spike ? (soft() ? h - threshold : splat(rest)) : h; }
    // Brings moving means of the distance from the threshold, and of its deviation from that mean, up to date at one
    // place (t, m, c); returns the sharpness that follows from them.
    template <class Lanes>
    vec adapted(vec h, int64_t at, Lanes lanes) const {
        vec u = absolute(h - threshold), m = load(distance + at, lanes), d = load(spread + at, lanes);
        m += 0.1f * (u - m);
        d += 0.1f * (absolute(u - m) - d);
        store(distance + at, m, lanes);
        store(spread + at, d, lanes);
        return alpha * reciprocal(m + 1.5f * d + 1e-4f);
    }
    // Gradient at the potential before firing, from those at the spike and at the potential after it.
    vec backward(vec h, vec grad_spike, vec grad_v, vec sharpness) const {
        vec above = h - threshold, x = (adaptive() ? (float)M_PI / 2 * sharpness : splat(slope)) * above;
        vec surrogate = (adaptive() ? sharpness / 2 : splat(alpha / 2)) * reciprocal(1 + x * x);
        if (!detach_reset()) grad_spike += grad_v * (soft() ? splat(-threshold) : rest - h);
        if (!soft()) grad_v = above >= 0 ? vec{} : grad_v;
        return grad_spike * surrogate + grad_v;
    }
};

}  // namespace
