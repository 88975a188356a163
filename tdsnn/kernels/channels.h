// Loops over tensors whose last axis is the channel, with numbers and sums per channel.
//
// Sums run in fp32 over short stretches and in fp64 between them.
#pragma once
#include "vector.h"

#include <algorithm>
#include <vector>

#define FLATTEN __attribute__((flatten))

namespace {

constexpr int64_t STRETCH = 256;  // additions in fp32 before a sum moves to fp64

// Per-channel numbers repeated, so that any sixteen consecutive elements read sixteen consecutive entries.
// At least 128 entries: sums into neighbouring groups then do not wait for each other.
struct Table {
    int64_t period;
    std::vector<float> values;
    Table(int64_t channels) : period(channels * std::max<int64_t>(1, 128 / channels)), values(period + LANES) {}
    const float* data() const { return values.data(); }
    template <class F>
    Table(int64_t channels, F value) : Table(channels) {
        for (size_t i = 0; i < values.size(); i++) values[i] = value(i % channels);
    }
};

struct Sums {  // per channel, of one thread
    int64_t channels;
    std::vector<Table> fast;
    std::vector<std::vector<double>> slow;
    Sums(int64_t channels, int kinds)
        : channels(channels), fast(kinds, Table(channels)), slow(kinds, std::vector<double>(channels)) {}
    float* data(int kind) { return fast[kind].values.data(); }
    void settle() {
        for (size_t kind = 0; kind < fast.size(); kind++)
            for (size_t i = 0; i < fast[kind].values.size(); i++) {
                slow[kind][i % channels] += fast[kind].values[i];
                fast[kind].values[i] = 0;
            }
    }
};

// In a fixed order, so that the same call gives the same bits.
Sums merged(const std::vector<Sums>& shares) {
    Sums total = shares[0];
    for (size_t k = 1; k < shares.size(); k++)
        for (size_t kind = 0; kind < total.slow.size(); kind++)
            for (int64_t c = 0; c < total.channels; c++) total.slow[kind][c] += shares[k].slow[kind][c];
    return total;
}

// Calls body(first, entry, lanes) for every group of a range of elements; `entry` indexes tables.
template <class Body, class Pause>
inline void sweep(int64_t begin, int64_t end, int64_t period, Body body, Pause pause) {
    int64_t entry = begin % period, until_pause = STRETCH * period, i = begin;
    for (; i + LANES <= end; i += LANES) {
        body(i, entry, Whole());
        entry += LANES;
        while (entry >= period) entry -= period;
        until_pause -= LANES;
        if (until_pause <= 0) pause(), until_pause = STRETCH * period;
    }
    if (i < end) body(i, entry, (int)(end - i));
    pause();
}

// A thread for less than this costs more than it saves.
int worth(int64_t count, int threads) {
    return (int)std::max<int64_t>(1, std::min<int64_t>(threads, count / (256 * LANES)));
}

// Calls work(k, begin, end) for the k-th of worth(count, threads) shares of all elements.
template <class Work>
void parallel(int64_t count, int threads, Work work) {
    const int64_t groups = (count + LANES - 1) / LANES;
    threads = worth(count, threads);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int k = 0; k < threads; k++) {
        int64_t begin = groups * k / threads * LANES, end = std::min(groups * (k + 1) / threads * LANES, count);
        work(k, begin, end);
    }
}

}  // namespace
