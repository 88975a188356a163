// Batch normalisation, shortcut and leaky integrate-and-fire neurons in one pass over memory.
//
// Tensors are (T, M, C) with channels last; a step holds count = M * C numbers. Nothing is kept for the backward
// pass but the inputs: potentials are computed anew from them.
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
    float* potential;  // (M, C) before the first step and after the last; null: start at rest, do not keep
};

namespace {

constexpr int MAX_STEPS = 64;

struct Affine {  // normalised x = x * scale + offset
    Table scale, offset, mean;
    Affine(const Operand& o, int64_t channels)
        : scale(channels, [&](int64_t c) { return o.mean ? factor(o, c) : 1.0f; }),
          offset(channels, [&](int64_t c) { return o.mean ? o.bias[c] - o.mean[c] * factor(o, c) : 0.0f; }),
          mean(channels, [&](int64_t c) { return o.mean ? o.mean[c] : 0.0f; }) {}
    static float inverse_deviation(const Operand& o, int64_t c) { return 1.0f / std::sqrt(o.variance[c] + o.epsilon); }
    static float factor(const Operand& o, int64_t c) { return o.weight[c] * inverse_deviation(o, c); }
};

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
    bool divides_, decay_input_, soft_, detach_reset_;
    Dynamics(const Problem& p)
        : tau(p.tau), inverse_tau(1 / p.tau), threshold(p.threshold), rest(p.soft ? 0 : p.reset), alpha(p.alpha),
          gain(p.decay_input ? 1 / p.tau : 1), leak(1 - 1 / p.tau), slope((float)M_PI / 2 * p.alpha),
          divides_(!power_of_two(p.tau)), decay_input_(p.decay_input), soft_(p.soft), detach_reset_(p.detach_reset) {}
    bool divides() const { return !K::COMMON && divides_; }
    bool decay_input() const { return K::COMMON || decay_input_; }
    bool soft() const { return !K::COMMON && soft_; }
    bool detach_reset() const { return K::COMMON || detach_reset_; }
    vec decayed(vec x) const { return divides() ? x / tau : x * inverse_tau; }
    vec charge(vec v, vec x) const {
        vec drift = v - rest;
        return decay_input() ? v + decayed(x - drift) : v - decayed(drift) + x;
    }
    vec fired(vec h, mask spike) const { return spike ? (soft() ? h - threshold : splat(rest)) : h; }
    // Gradient at the potential before firing, from those at the spike and at the potential after it.
    vec backward(vec h, vec grad_spike, vec grad_v) const {
        vec above = h - threshold, x = slope * above;
        vec surrogate = (alpha / 2) * reciprocal(1 + x * x);
        if (!detach_reset()) grad_spike += grad_v * (soft() ? splat(-threshold) : rest - h);
        if (!soft()) grad_v = above >= 0 ? vec{} : grad_v;
        return grad_spike * surrogate + grad_v;
    }
};

template <class K, class S = typename K::S>
void forward(const Problem& p, S* spikes) {
    const Affine a(p.current, p.channels), b(p.shortcut, p.channels);
    parallel(p.count, p.threads, [&](int k, int64_t begin, int64_t end) FLATTEN {
        const Input<K> input(p, a, b);
        const Dynamics<K> neuron(p);
        const int64_t steps = K::STEPS ? K::STEPS : p.steps, count = p.count;
        float* const potential = p.potential;
        S* const out = spikes;
        sweep(begin, end, a.scale.period, [&](int64_t i, int64_t entry, auto lanes) {
            vec v = potential ? load(potential + i, lanes) : splat(neuron.rest);
            for (int64_t t = 0; t < steps; t++) {
                vec h = neuron.charge(v, input(t, i, entry, lanes));
                mask spike = h >= neuron.threshold;
                store(out + t * count + i, spike ? splat(1) : vec{}, lanes);
                v = neuron.fired(h, spike);
            }
            if (potential) store(potential + i, v, lanes);
        }, [] {});
    });
}

// Calls use(t, gradient) from the last step to the first for sixteen neurons.
template <class K, class S, class Lanes, class Use>
inline void replay(int64_t steps, int64_t count, const Input<K>& input, const Dynamics<K>& neuron, const S* grad, int64_t i,
                   int64_t entry, Lanes lanes, Use use) {
    vec h[K::STEPS ? K::STEPS : MAX_STEPS], v = splat(neuron.rest);
    for (int64_t t = 0; t < steps; t++) {
        h[t] = neuron.charge(v, input(t, i, entry, lanes));
        v = neuron.fired(h[t], h[t] >= neuron.threshold);
    }
    vec grad_v = {};
    for (int64_t t = steps - 1; t >= 0; t--) {
        vec grad_h = neuron.backward(h[t], load(grad + t * count + i, lanes), grad_v);
        use(t, grad_h * neuron.gain);
        grad_v = grad_h * neuron.leak;
    }
}

enum { GRAD, GRAD_CURRENT, GRAD_SHORTCUT, KINDS };

// Per channel: the sum of the gradient, and of its products with the two centred operands.
template <class K, class S = typename K::S>
Sums gradient_sums(const Problem& p, const Affine& a, const Affine& b, const S* grad) {
    std::vector<Sums> shares(worth(p.count, p.threads), Sums(p.channels, KINDS));
    parallel(p.count, p.threads, [&](int k, int64_t begin, int64_t end) FLATTEN {
        const Input<K> input(p, a, b);
        const Dynamics<K> neuron(p);
        const int64_t steps = K::STEPS ? K::STEPS : p.steps, count = p.count;
        const S* const g_in = grad;
        Sums& sums = shares[k];
        float *own = sums.data(GRAD), *current = sums.data(GRAD_CURRENT), *shortcut = sums.data(GRAD_SHORTCUT);
        sweep(begin, end, a.scale.period, [&](int64_t i, int64_t entry, auto lanes) {
            vec all = {}, with_current = {}, with_shortcut = {};
            replay<K>(steps, count, input, neuron, g_in, i, entry, lanes, [&](int64_t t, vec g) {
                all += g;
                with_current += g * input.centred(t, i, entry, lanes);
                if (K::SHORTCUT == NORMALISED) with_shortcut += g * input.shortcut_centred(t, i, entry, lanes);
            });
            store(own + entry, load(own + entry) + all);
            store(current + entry, load(current + entry) + with_current);
            store(shortcut + entry, load(shortcut + entry) + with_shortcut);
        }, [&] { sums.settle(); });
    });
    return merged(shares);
}

// Gradient of an operand = own * gradient + centred * (operand - mean) + constant.
struct Coefficients {
    Table own, centred, constant;
    Coefficients(const Problem& p, const Operand& o, const Sums* sums, int kind)
        : own(p.channels, [&](int64_t c) { return o.mean ? Affine::factor(o, c) : 1.0f; }), centred(p.channels),
          constant(p.channels) {
        if (!o.mean || !o.batch) return;
        const double rows = double(p.count / p.channels) * (o.constant ? 1 : p.steps);
        for (size_t i = 0; i < own.values.size(); i++) {
            const int64_t c = i % p.channels;
            const double factor = Affine::factor(o, c);
            centred.values[i] = -factor * sums->slow[kind][c] / (rows * (double(o.variance[c]) + o.epsilon));
            constant.values[i] = -factor * sums->slow[GRAD][c] / rows;
        }
    }
};

struct Combination {  // the same with plain pointers
    const float *own, *centred, *constant;
    Combination(const Coefficients& c) : own(c.own.data()), centred(c.centred.data()), constant(c.constant.data()) {}
    vec operator()(vec grad, vec operand, int64_t entry) const {
        return load(own + entry) * grad + load(centred + entry) * operand + load(constant + entry);
    }
};

template <class K, class S = typename K::S>
void gradients(const Problem& p, const Affine& a, const Affine& b, const S* grad, const Sums& sums, S* to_current,
               S* to_shortcut) {
    const Coefficients of_current(p, p.current, &sums, GRAD_CURRENT), of_shortcut(p, p.shortcut, &sums, GRAD_SHORTCUT);
    parallel(p.count, p.threads, [&](int k, int64_t begin, int64_t end) FLATTEN {
        const Input<K> input(p, a, b);
        const Dynamics<K> neuron(p);
        const Combination current(of_current), shortcut(of_shortcut);
        const int64_t steps = K::STEPS ? K::STEPS : p.steps, count = p.count;
        const bool constant = p.current.constant;
        const S* const g_in = grad;
        S *const g_current = to_current, *const g_shortcut = to_shortcut;
        sweep(begin, end, a.scale.period, [&](int64_t i, int64_t entry, auto lanes) {
            vec over_time = {};
            replay<K>(steps, count, input, neuron, g_in, i, entry, lanes, [&](int64_t t, vec g) {
                over_time += g;
                if (g_current && !constant)
                    store(g_current + t * count + i, current(g, input.centred(t, i, entry, lanes), entry), lanes);
                if (g_shortcut) {
                    vec other = K::SHORTCUT == NORMALISED ? input.shortcut_centred(t, i, entry, lanes) : vec{};
                    store(g_shortcut + t * count + i, shortcut(g, other, entry), lanes);
                }
            });
            if (g_current && constant)
                store(g_current + i, current(over_time, input.centred(0, i, entry, lanes), entry), lanes);
        }, [] {});
    });
}

void parameter_gradients(const Operand& o, const Sums& sums, int kind, float* weight, float* bias) {
    for (int64_t c = 0; weight && c < sums.channels; c++) {
        weight[c] = sums.slow[kind][c] * Affine::inverse_deviation(o, c);
        bias[c] = sums.slow[GRAD][c];
    }
}

template <class K, class S = typename K::S>
void backward(const Problem& p, const S* grad, S* to_current, S* to_shortcut, float* weight, float* bias,
              float* shortcut_weight, float* shortcut_bias) {
    const Affine a(p.current, p.channels), b(p.shortcut, p.channels);
    Sums sums(p.channels, 0);
    if (weight || shortcut_weight || p.current.batch || p.shortcut.batch) {
        sums = gradient_sums<K>(p, a, b, grad);
        parameter_gradients(p.current, sums, GRAD_CURRENT, weight, bias);
        parameter_gradients(p.shortcut, sums, GRAD_SHORTCUT, shortcut_weight, shortcut_bias);
    }
    if (to_current || to_shortcut) gradients<K>(p, a, b, grad, sums, to_current, to_shortcut);
}

// Calls f with the kind of a problem.
template <class F>
void specialised(const Problem& p, F f) {
    auto with_shortcut = [&](auto storage, auto steps, auto common) {
        using S = decltype(storage);
        if (!p.shortcut.data) f(Kind<S, steps(), common(), NONE>());
        else if (!p.shortcut.mean) f(Kind<S, steps(), common(), PLAIN>());
        else f(Kind<S, steps(), common(), NORMALISED>());
    };
    auto with_neuron = [&](auto storage, auto steps) {
        const bool common = p.decay_input && !p.soft && p.detach_reset && power_of_two(p.tau);
        if (common) with_shortcut(storage, steps, std::true_type());
        else with_shortcut(storage, steps, std::false_type());
    };
    auto with_steps = [&](auto storage) {
        if (p.steps == 4) with_neuron(storage, std::integral_constant<int, 4>());
        else with_neuron(storage, std::integral_constant<int, 0>());
    };
    if (p.half) with_steps(bf16());
    else with_steps(float());
}

}  // namespace

extern "C" {

int tdsnn_fire_max_steps() { return MAX_STEPS; }

void tdsnn_fire(const Problem* p, void* spikes) {
    specialised(*p, [&](auto kind) {
        using K = decltype(kind);
        forward<K>(*p, (typename K::S*)spikes);
    });
}

void tdsnn_fire_backward(const Problem* p, const void* grad, void* to_current, void* to_shortcut, float* weight,
                         float* bias, float* shortcut_weight, float* shortcut_bias) {
    specialised(*p, [&](auto kind) {
        using K = decltype(kind);
        using S = typename K::S;
        backward<K>(*p, (const S*)grad, (S*)to_current, (S*)to_shortcut, weight, bias, shortcut_weight, shortcut_bias);
    });
}
}
