// Chosen columns of a matrix (rows, length), in groups that may share columns, and the way back for their gradients.
#include "channels.h"

namespace {

inline float number(float x) { return x; }
inline float number(bf16 x) {
    const uint32_t wide = (uint32_t)x.value << 16;
    float result;
    std::memcpy(&result, &wide, sizeof result);
    return result;
}

struct Choice {
    int64_t rows, length;   // of the matrix
    int64_t groups, size;   // of the chosen columns
    int32_t half, threads;  // whether the matrix is in bf16
};

// Calls work(row) for every row.
template <class Work>
void each_row(const Choice& c, Work work) {
#pragma omp parallel for num_threads(worth(c.rows * c.groups * c.size, c.threads)) schedule(static)
    for (int64_t row = 0; row < c.rows; row++) work(row);
}

template <class S>
void gather(const Choice& c, const S* matrix, const int64_t* columns, float* to) {
    each_row(c, [&](int64_t row) {
        const S* from = matrix + row * c.length;
        for (int64_t g = 0; g < c.groups; g++)
            for (int64_t n = 0; n < c.size; n++)
                to[(g * c.rows + row) * c.size + n] = number(from[columns[g * c.size + n]]);
    });
}

template <class S>
void scatter(const Choice& c, const float* grad, const int64_t* different, int64_t count, const int64_t* place, S* matrix) {
    each_row(c, [&](int64_t row) {
        std::vector<float> sums(count + LANES, 0);
        std::vector<S> rounded(count + LANES);
        for (int64_t g = 0; g < c.groups; g++)
            for (int64_t n = 0; n < c.size; n++)
                sums[place[g * c.size + n]] += grad[(g * c.rows + row) * c.size + n];
        for (int64_t k = 0; k < count; k += LANES) store(rounded.data() + k, load(sums.data() + k));
        S* to = matrix + row * c.length;
        std::fill(to, to + c.length, S{});
        for (int64_t k = 0; k < count; k++) to[different[k]] = rounded[k];
    });
}

}  // namespace

extern "C" {

// to (groups, rows, size) in fp32: the matrix' `columns` (groups, size).
void tdsnn_gather_columns(const Choice* c, const void* matrix, const int64_t* columns, float* to) {
    if (c->half) gather(*c, (const bf16*)matrix, columns, to);
    else gather(*c, (const float*)matrix, columns, to);
}

// The matrix that is zero but for the sum of grad (groups, rows, size) over the places where a column was chosen;
// `different` (count) are the chosen columns, and place (groups, size) says which of them each is.
void tdsnn_scatter_columns(const Choice* c, const float* grad, const int64_t* different, int64_t count,
                           const int64_t* place, void* matrix) {
    if (c->half) scatter(*c, grad, different, count, place, (bf16*)matrix);
    else scatter(*c, grad, different, count, place, (float*)matrix);
}
}
