// Sixteen numbers at a time, in fp32, whatever they are stored as. GCC and Clang vector extensions: any CPU.
#pragma once
#include <cstdint>
#include <cstring>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

constexpr int LANES = 16;
typedef float vec __attribute__((vector_size(64), aligned(4)));
typedef int32_t mask __attribute__((vector_size(64), aligned(4)));
typedef uint32_t bits __attribute__((vector_size(64), aligned(4)));
typedef uint16_t half_bits __attribute__((vector_size(32), aligned(2)));

struct bf16 {
    uint16_t value;
};

static inline vec splat(float x) { return x - vec{}; }

static inline vec widen(half_bits h) {
#ifdef __AVX512F__
    return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)h), 16);
#else
    bits wide = __builtin_convertvector(h, bits) << 16;
    return (vec)wide;
#endif
}

// Round to nearest even; NaN stays NaN because the quiet bit lies in the half that is kept.
static inline half_bits narrow(vec x) {
#ifdef __AVX512BF16__
    return (half_bits)_mm512_cvtneps_pbh((__m512)x);
#else
    bits u = (bits)x;
    bits rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    bits quiet = (u >> 16) | 0x40u;
    mask number = x == x;
    bits chosen = (rounded & (bits)number) | (quiet & ~(bits)number);
    return __builtin_convertvector(chosen, half_bits);
#endif
}

static inline vec load(const float* p) { return *(const vec*)p; }
static inline vec load(const bf16* p) { return widen(*(const half_bits*)p); }
static inline void store(float* p, vec x) { *(vec*)p = x; }
static inline void store(bf16* p, vec x) { *(half_bits*)p = narrow(x); }

// A whole group of numbers, or the last one of an array: `n` < LANES of them, the rest read as zero. Loops are
// written once for both; `n` is a constant in the first case.
struct Whole {
    constexpr operator int() const { return LANES; }
};

template <class S>
static inline vec load(const S* p, Whole) {
    return load(p);
}

template <class S>
static inline vec load(const S* p, int n) {
    S part[LANES] = {};
    std::memcpy(part, p, n * sizeof(S));
    return load(part);
}

template <class S>
static inline void store(S* p, vec x, Whole) {
    store(p, x);
}

template <class S>
static inline void store(S* p, vec x, int n) {
    S part[LANES];
    store(part, x);
    std::memcpy(p, part, n * sizeof(S));
}

// Which of sixteen lanes are among the first n.
static inline mask within(int n) {
    const mask lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return lane < n;
}

// 1 / x to about 2^-27: a Newton step from the CPU's estimate costs a quarter of a division.
static inline vec reciprocal(vec x) {
#ifdef __AVX512F__
    vec r = (vec)_mm512_rcp14_ps((__m512)x);
    return r * (2 - x * r);
#else
    return 1 / x;
#endif
}
