// Greedy exchange of units between the places of a square, for several squares.
#include <algorithm>
#include <cstdint>
#include <numeric>

namespace {

struct Squares {
    int64_t count, size, attempts;
    double tie;
    int32_t threads;
};

// One square. Correlation and proximity (size, size) are in the order of the units; the latter follows the exchanges.
struct Square {
    int64_t size;
    const float* correlation;
    float* proximity;
    int64_t* places;

    // What the sum of correlation times proximity over all pairs gains if i and j exchange places.
    double gain(int64_t i, int64_t j) const {
        const float *alike = correlation + i * size, *other_alike = correlation + j * size;
        const float *near = proximity + i * size, *other_near = proximity + j * size;
        const auto term = [&](int64_t k) {
            return ((double)alike[k] - other_alike[k]) * ((double)other_near[k] - near[k]);
        };
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t k = 0; k < size; k++) sum += term(k);
        // The distances between and to themselves stay as they are.
        return sum - term(i) - term(j);
    }

    void exchange(int64_t i, int64_t j) {
        std::swap(places[i], places[j]);
        std::swap_ranges(proximity + i * size, proximity + (i + 1) * size, proximity + j * size);
        for (int64_t k = 0; k < size; k++) std::swap(proximity[k * size + i], proximity[k * size + j]);
    }
};

}  // namespace

extern "C" {

// Tries the pairs (count, attempts, 2) in their order and keeps an exchange that gains more than `tie`.
// In: correlation and proximity (count, size, size); the second is overwritten.
// Out: places (count, size), the unit at whose first place each unit ends; accepted and gained (count).
void tdsnn_swaps(const Squares* c, const float* correlation, float* proximity, const int64_t* pairs, int64_t* places,
                 int64_t* accepted, double* gained) {
#pragma omp parallel for num_threads(c->threads) schedule(dynamic)
    for (int64_t g = 0; g < c->count; g++) {
        const int64_t area = c->size * c->size;
        Square square{c->size, correlation + g * area, proximity + g * area, places + g * c->size};
        std::iota(square.places, square.places + c->size, 0);
        int64_t kept = 0;
        double sum = 0;
        for (const int64_t *pair = pairs + 2 * g * c->attempts, *end = pair + 2 * c->attempts; pair < end; pair += 2) {
            const double gain = square.gain(pair[0], pair[1]);
            if (!(gain > c->tie)) continue;
            square.exchange(pair[0], pair[1]);
            kept++;
            sum += gain;
        }
        accepted[g] = kept;
        gained[g] = sum;
    }
}
}
