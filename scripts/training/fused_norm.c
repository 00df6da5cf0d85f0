// GroupNorm followed by SiLU, and its gradient, on bfloat16 activations stored channels last: (N, P pixels, C channels).
// PyTorch's own takes more than half of a training step of a small network on a CPU, because it walks over each
// activation, in fp32, some ten times. One sample fits the second-level cache, so here all passes but the first are cheap.
// Sums are fp32. Built by fused_norm.py.

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float widen(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline uint16_t narrow(float value) {  // to nearest even, as PyTorch rounds
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// mean, rstd: (N, groups), written. C is at most 1024.
void norm_silu_forward(const uint16_t *x, const float *weight, const float *bias, uint16_t *y, float *mean, float *rstd,
                       long n, long pixels, long c, long groups, float eps) {
    long per_group = c / groups;
    for (long i = 0; i < n; i++) {
        const uint16_t *xi = x + i * pixels * c;
        uint16_t *yi = y + i * pixels * c;
        float sum[1024], scale[1024], shift[1024];
        for (long j = 0; j < c; j++) sum[j] = 0;
        for (long p = 0; p < pixels; p++)
            for (long j = 0; j < c; j++) sum[j] += widen(xi[p * c + j]);
        for (long g = 0; g < groups; g++) {
            float total = 0;
            for (long j = g * per_group; j < (g + 1) * per_group; j++) total += sum[j];
            mean[i * groups + g] = total / (pixels * per_group);
            for (long j = g * per_group; j < (g + 1) * per_group; j++) shift[j] = mean[i * groups + g], sum[j] = 0;
        }
        for (long p = 0; p < pixels; p++)
            for (long j = 0; j < c; j++) {
                float d = widen(xi[p * c + j]) - shift[j];
                sum[j] += d * d;
            }
        for (long g = 0; g < groups; g++) {
            float total = 0;
            for (long j = g * per_group; j < (g + 1) * per_group; j++) total += sum[j];
            float r = 1 / sqrtf(total / (pixels * per_group) + eps);
            rstd[i * groups + g] = r;
            for (long j = g * per_group; j < (g + 1) * per_group; j++) {
                scale[j] = r * weight[j];
                shift[j] = bias[j] - mean[i * groups + g] * scale[j];
            }
        }
        for (long p = 0; p < pixels; p++)
            for (long j = 0; j < c; j++) {
                float z = widen(xi[p * c + j]) * scale[j] + shift[j];
                yi[p * c + j] = narrow(z / (1 + expf(-z)));
            }
    }
}

// dweight, dbias: (C), added to. scratch: (pixels, C).
void norm_silu_backward(const uint16_t *x, const uint16_t *dy, const float *weight, const float *bias, const float *mean,
                        const float *rstd, uint16_t *dx, float *dweight, float *dbias, float *scratch, long n, long pixels,
                        long c, long groups) {
    long per_group = c / groups;
    for (long i = 0; i < n; i++) {
        const uint16_t *xi = x + i * pixels * c, *dyi = dy + i * pixels * c;
        uint16_t *dxi = dx + i * pixels * c;
        float r[1024], offset[1024], a[1024], b[1024];  // xhat = x r + offset; a, b: sums of dz and dz xhat
        for (long j = 0; j < c; j++) {
            r[j] = rstd[i * groups + j / per_group];
            offset[j] = -mean[i * groups + j / per_group] * r[j];
            a[j] = b[j] = 0;
        }
        for (long p = 0; p < pixels; p++)
            for (long j = 0; j < c; j++) {
                float xhat = widen(xi[p * c + j]) * r[j] + offset[j];
                float z = xhat * weight[j] + bias[j];
                float s = 1 / (1 + expf(-z));
                float dz = widen(dyi[p * c + j]) * s * (1 + z * (1 - s));
                scratch[p * c + j] = dz;
                a[j] += dz;
                b[j] += dz * xhat;
            }
        for (long j = 0; j < c; j++) dbias[j] += a[j], dweight[j] += b[j];
        for (long g = 0; g < groups; g++) {
            float first = 0, second = 0;
            for (long j = g * per_group; j < (g + 1) * per_group; j++) first += a[j] * weight[j], second += b[j] * weight[j];
            first /= pixels * per_group, second /= pixels * per_group;
            for (long j = g * per_group; j < (g + 1) * per_group; j++) a[j] = first, b[j] = second;
        }
        for (long p = 0; p < pixels; p++)
            for (long j = 0; j < c; j++) {
                float xhat = widen(xi[p * c + j]) * r[j] + offset[j];
                dxi[p * c + j] = narrow(r[j] * (scratch[p * c + j] * weight[j] - a[j] - xhat * b[j]));
            }
    }
}
