// Mean and variance of each channel.
#include "channels.h"

namespace {

template <class S>
void moments(const S* x, int64_t rows, int64_t channels, int threads, float* mean, float* variance) {
    // Deviations from the first row: the sum of their squares does not cancel when the mean is far from zero.
    const Table pivot(channels, [&](int64_t c) { return load(x + c, 1)[0]; });
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
