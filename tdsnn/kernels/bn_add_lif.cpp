// Batch normalisation, shortcut and leaky integrate-and-fire neurons in one pass over memory.
//
// Nothing is kept for the backward pass but the inputs: potentials are computed anew from them.
#include "bn_add_lif.h"

namespace {

template <class K, class S = typename K::S>
void forward(const Problem& p, S* spikes, float* last) {
    const Affine a(p.current, p.channels), b(p.shortcut, p.channels);
    parallel(p.count, p.threads, [&](int k, int64_t begin, int64_t end) FLATTEN {
        const Input<K> input(p, a, b);
        const Dynamics<K> neuron(p);
        const int64_t steps = K::STEPS ? K::STEPS : p.steps, count = p.count;
        const float* const initial = p.initial;
        float* const after = last;
        S* const out = spikes;
        sweep(begin, end, a.scale.period, [&](int64_t i, int64_t entry, auto lanes) {
            vec v = initial ? load(initial + i, lanes) : splat(neuron.rest);
            for (int64_t t = 0; t < steps; t++) {
                vec h = neuron.charge(v, input(t, i, entry, lanes));
                mask spike = h >= neuron.threshold;
                store(out + t * count + i, spike ? splat(1) : vec{}, lanes);
                v = neuron.fired(h, spike);
            }
            if (after) store(after + i, v, lanes);
        }, [] {});
    });
}

template <class S>
struct OutputGradients {
    const S* spikes;    // (T, M, C)
    const float* last;  // (M, C), at the potential after the last step; null: zero
};

// Calls use(t, gradient) from the last step to the first for sixteen neurons; returns the gradient at their initial
// potential.
template <class K, class S, class Lanes, class Use>
inline vec replay(int64_t steps, int64_t count, const float* initial, const Input<K>& input, const Dynamics<K>& neuron,
                  const OutputGradients<S>& grad, int64_t i, int64_t entry, Lanes lanes, Use use) {
    constexpr int LONGEST = K::STEPS ? K::STEPS : MAX_STEPS;
    vec h[LONGEST], sharpness[LONGEST], v = initial ? load(initial + i, lanes) : splat(neuron.rest);
    for (int64_t t = 0; t < steps; t++) {
        h[t] = neuron.charge(v, input(t, i, entry, lanes));
        sharpness[t] = neuron.adaptive() ? neuron.adapted(h[t], t * count + i, lanes) : vec{};
        v = neuron.fired(h[t], h[t] >= neuron.threshold);
    }
    vec grad_v = grad.last ? load(grad.last + i, lanes) : vec{};
    for (int64_t t = steps - 1; t >= 0; t--) {
        vec grad_h = neuron.backward(h[t], load(grad.spikes + t * count + i, lanes), grad_v, sharpness[t]);
        use(t, grad_h * neuron.gain);
        grad_v = grad_h * neuron.leak;
    }
    return grad_v;
}

enum { GRAD, GRAD_CURRENT, GRAD_SHORTCUT, KINDS };

// Per channel: the sum of the gradient, and of its products with the two centred operands.
template <class K, class S = typename K::S>
Sums gradient_sums(const Problem& p, const Affine& a, const Affine& b, const OutputGradients<S>& grad) {
    std::vector<Sums> shares(worth(p.count, p.threads), Sums(p.channels, KINDS));
    parallel(p.count, p.threads, [&](int k, int64_t begin, int64_t end) FLATTEN {
        const Input<K> input(p, a, b);
        const Dynamics<K> neuron(p);
        const int64_t steps = K::STEPS ? K::STEPS : p.steps, count = p.count;
        const OutputGradients<S> g_in = grad;
        const float* const initial = p.initial;
        Sums& sums = shares[k];
        float *own = sums.data(GRAD), *current = sums.data(GRAD_CURRENT), *shortcut = sums.data(GRAD_SHORTCUT);
        sweep(begin, end, a.scale.period, [&](int64_t i, int64_t entry, auto lanes) {
            vec all = {}, with_current = {}, with_shortcut = {};
            replay<K>(steps, count, initial, input, neuron, g_in, i, entry, lanes, [&](int64_t t, vec g) {
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
void gradients(const Problem& p, const Affine& a, const Affine& b, const OutputGradients<S>& grad, const Sums& sums,
               S* to_current, S* to_shortcut, float* to_initial) {
    const Coefficients of_current(p, p.current, &sums, GRAD_CURRENT), of_shortcut(p, p.shortcut, &sums, GRAD_SHORTCUT);
    parallel(p.count, p.threads, [&](int k, int64_t begin, int64_t end) FLATTEN {
        const Input<K> input(p, a, b);
        const Dynamics<K> neuron(p);
        const Combination current(of_current), shortcut(of_shortcut);
        const int64_t steps = K::STEPS ? K::STEPS : p.steps, count = p.count;
        const bool constant = p.current.constant;
        const OutputGradients<S> g_in = grad;
        const float* const initial = p.initial;
        S *const g_current = to_current, *const g_shortcut = to_shortcut;
        float* const g_initial = to_initial;
        sweep(begin, end, a.scale.period, [&](int64_t i, int64_t entry, auto lanes) {
            vec over_time = {};
            vec at_start = replay<K>(steps, count, initial, input, neuron, g_in, i, entry, lanes, [&](int64_t t, vec g) {
                over_time += g;
                if (g_current && !constant)
                    store(g_current + t * count + i, current(g, input.centred(t, i, entry, lanes), entry), lanes);
                if (g_shortcut) {
                    vec other = K::SHORTCUT == NORMALISED ? input.shortcut_centred(t, i, entry, lanes) : vec{};
                    store(g_shortcut + t * count + i, shortcut(g, other, entry), lanes);
                }
            });
            if (g_initial) store(g_initial + i, at_start, lanes);
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
void backward(const Problem& p, const OutputGradients<S>& grad, S* to_current, S* to_shortcut, float* to_initial,
              float* weight, float* bias, float* shortcut_weight, float* shortcut_bias) {
    const Affine a(p.current, p.channels), b(p.shortcut, p.channels);
    Sums sums(p.channels, 0);
    if (weight || shortcut_weight || p.current.batch || p.shortcut.batch) {
        sums = gradient_sums<K>(p, a, b, grad);
        parameter_gradients(p.current, sums, GRAD_CURRENT, weight, bias);
        parameter_gradients(p.shortcut, sums, GRAD_SHORTCUT, shortcut_weight, shortcut_bias);
    }
    if (to_current || to_shortcut || to_initial)
        gradients<K>(p, a, b, grad, sums, to_current, to_shortcut, to_initial);
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
        const bool common = p.decay_input && !p.soft && p.detach_reset && power_of_two(p.tau) && !p.distance;
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

// `last`: (M, C), the potential after the last step; null: not kept.
void tdsnn_bn_add_lif(const Problem* p, void* spikes, float* last) {
    specialised(*p, [&](auto kind) {
        using K = decltype(kind);
        forward<K>(*p, (typename K::S*)spikes, last);
    });
}

// Gradients that are null are not computed; those of weight and bias come in pairs.
void tdsnn_bn_add_lif_backward(const Problem* p, const void* spikes, const float* last, void* to_current,
                               void* to_shortcut, float* to_initial, float* weight, float* bias, float* shortcut_weight,
                               float* shortcut_bias) {
    specialised(*p, [&](auto kind) {
        using K = decltype(kind);
        using S = typename K::S;
        const OutputGradients<S> grad{(const S*)spikes, last};
        backward<K>(*p, grad, (S*)to_current, (S*)to_shortcut, to_initial, weight, bias, shortcut_weight, shortcut_bias);
    });
}
}
