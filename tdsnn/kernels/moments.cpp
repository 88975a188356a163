// Mean and variance of each channel.
#include "channels.h"

namespace {

constexpr int64_t SAMPLES = 15;

// The median of some rows of one channel. It lies within a few deviations of the mean, so that a sum of squares from
// it does not cancel, and unlike a single row or a mean it does so when some values are far out.
template <class S>
float near_the_mean(const S* x, int64_t rows, int64_t channels, int64_t channel) {
    float values[SAMPLES];
    const int64_t count = std::min(SAMPLES, rows);
    for (int64_t k = 0; k < count; k++) values[k] = load(x + rows * k / count * channels + channel, 1)[0];
    const auto less = [](float a, float b) { return a < b || (a == a && b != b); };  // an order also with NaN
    std::nth_element(values, values + count / 2, values + count, less);
    return values[count / 2];
}

template <class S>
void moments(const S* x, int64_t rows, int64_t channels, int threads, float* mean, float* variance) {
    std::vector<float> shift_of(channels);
    for (int64_t c = 0; c < channels; c++) shift_of[c] = near_the_mean(x, rows, channels, c);
    const Table pivot(channels, [&](int64_t c) { return shift_of[c]; });
    std::vector<Sums> shares(worth(rows * channels, threads), Sums(channels, 2));
    parallel(rows * channels, threads, [&](int k, int64_t begin, int64_t end) FLATTEN {
        Sums& sums = shares[k];
        float *first = sums.data(0), *second = sums.data(1);
        const float* const shift = pivot.data();
        const S* const data = x;
        sweep(begin, end, pivot.period, [&](int64_t i, int64_t entry, auto lanes) {
            vec d = load(data + i, lanes) - load(shift + entry);
            if (lanes < LANES) d = within(lanes) ? d : vec{};
            store(first + entry, load(first + entry) + d);
            store(second + entry, load(second + entry) + d * d);
        }, [&] { sums.settle(); });
    });
    const Sums total = merged(shares);
    for (int64_t c = 0; c < channels; c++) {
        const double shift = total.slow[0][c] / rows;
        mean[c] = pivot.values[c] + shift;
        variance[c] = std::max(total.slow[1][c] / rows - shift * shift, 0.0);
    }
}

}  // namespace

extern "C" void tdsnn_moments(const void* x, int half, int64_t rows, int64_t channels, int threads, float* mean, float* variance) {
    if (half) moments((const bf16*)x, rows, channels, threads, mean, variance);
    else moments((const float*)x, rows, channels, threads, mean, variance);
}
