/* One primal-dual iteration by hand: two passes over the pixels, everything else in registers, both cores.
 *
 * The practical limit that the compiled JAX iteration is measured against. Compiled at run time with -DK=<candidates>;
 * network.h holds the comparators of a sorting network, one S(i, j) per line. All planes are [H, W] float32. */
#include <math.h>
#include <stddef.h>

#define LANES 16

static void ascend(int H, int W, const float *restrict a, float *const *ubar, float *const *p, float sigma) {
  const float *restrict u = ubar[0], *restrict v = ubar[1];
  float *restrict p0 = p[0], *restrict p1 = p[1], *restrict p2 = p[2], *restrict p3 = p[3], *restrict p4 = p[4];
#pragma omp parallel for schedule(static)
  for (int i = 0; i < H; i++) {
    const size_t row = (size_t)i * W, down = i < H - 1 ? W : 0;
#pragma omp simd
    for (int j = 0; j < W; j++) {
      const size_t n = row + j, right = j < W - 1;
      const float q0 = p0[n] + sigma * a[n];
      const float q1 = p1[n] + sigma * (u[n + right] - u[n]), q2 = p2[n] + sigma * (u[n + down] - u[n]);
      const float q3 = p3[n] + sigma * (v[n + right] - v[n]), q4 = p4[n] + sigma * (v[n + down] - v[n]);
      const float square = q0 * q0 + q1 * q1 + q2 * q2 + q3 * q3 + q4 * q4;
      const float scale = 1.0f / sqrtf(square > 1.0f ? square : 1.0f);
      p0[n] = q0 * scale; p1[n] = q1 * scale; p2[n] = q2 * scale; p3[n] = q3 * scale; p4[n] = q4 * scale;
    }
  }
}

/* LANES pixels from n on, in row i. */
__attribute__((always_inline)) static inline void descend(size_t n, int i, size_t last_row, int W, float *const *c, float *const *w, float *const *u,
                           float *const *ubar, float *const *p, float tau, float lambda, float amount, int lanes) {
  float x[K][LANES], s[K][LANES], best[LANES], sum[LANES], mean[2][LANES];
  for (int k = 0; k < K; k++)
    for (int l = 0; l < LANES; l++) {
      const size_t m = n + (l < lanes ? l : 0);
      const float da = ubar[0][m] - c[k][m], db = ubar[1][m] - c[K + k][m];
      s[k][l] = x[k][l] = w[k][m] - amount * (da * da + db * db);
    }
#define S(I, J)                                                                                                      \
  for (int l = 0; l < LANES; l++) {                                                                                  \
    const float high = s[I][l] > s[J][l] ? s[I][l] : s[J][l], low = s[I][l] > s[J][l] ? s[J][l] : s[I][l];           \
    s[I][l] = high; s[J][l] = low;                                                                                   \
  }
#include "network.h"
  for (int l = 0; l < LANES; l++) { sum[l] = s[0][l]; best[l] = s[0][l] - 1.0f; mean[0][l] = mean[1][l] = 0; }
  for (int k = 1; k < K; k++)
    for (int l = 0; l < LANES; l++) {
      sum[l] += s[k][l];
      const float t = (sum[l] - 1.0f) * (1.0f / (k + 1));
      best[l] = t > best[l] ? t : best[l];
    }
  for (int k = 0; k < K; k++)
    for (int l = 0; l < LANES; l++) {
      const float y = x[k][l] - best[l], z = y > 0 ? y : 0;
      x[k][l] = z;
      mean[0][l] += z * c[k][n + (l < lanes ? l : 0)];
      mean[1][l] += z * c[K + k][n + (l < lanes ? l : 0)];
    }
  for (int k = 0; k < K; k++) {
    float *restrict to = w[k] + n;
    for (int l = 0; l < lanes; l++) to[l] = x[k][l];
  }
  const float scale = 1.0f / (1.0f + tau * lambda);
  for (int d = 0; d < 2; d++) {
    const float *px = p[1 + 2 * d] + n, *py = p[2 + 2 * d] + n;
    float *restrict to = u[d] + n, *restrict ahead = ubar[d] + n, start[LANES];
    /* No branch in the loop: p is 0 in the last column and the last row, which stand in for those before the first. */
    const float *left = px - 1, *above = i > 0 ? py - W : py + last_row;
    if (n == 0) {
      start[0] = 0;
      for (int l = 1; l < lanes; l++) start[l] = px[l - 1];
      left = start;
    }
#pragma GCC ivdep
    for (int l = 0; l < lanes; l++) {
      const float old = to[l], new = (old + tau * (px[l] - left[l] + py[l] - above[l]) + tau * lambda * mean[d][l]) * scale;
      to[l] = new;
      ahead[l] = 2 * new - old;
    }
  }
}

void iterate(int steps, int H, int W, const float *a, float *const *c, float *const *w, float *const *u,
             float *const *ubar, float *const *p, float sigma, float tau, float lambda, float rho) {
  for (int step = 0; step < steps; step++) {
    ascend(H, W, a, ubar, p, sigma);
#pragma omp parallel for schedule(static)
    for (int i = 0; i < H; i++) {
      int j = 0;
      for (; j + LANES <= W; j += LANES)
        descend((size_t)i * W + j, i, (size_t)(H - 1) * W, W, c, w, u, ubar, p, tau, lambda, rho * lambda / 2, LANES);
      if (j < W) descend((size_t)i * W + j, i, (size_t)(H - 1) * W, W, c, w, u, ubar, p, tau, lambda, rho * lambda / 2, W - j);
    }
  }
}
