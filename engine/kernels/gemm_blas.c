/* The openblas engine's product: panels of decoded rows, multiplied in float32.
 *
 * The weights stay where they are (a file mapping). A panel of 64 rows is decoded to floats and
 * multiplied by all rows of x with sgemm, or one by one with our own dot product where x is a
 * single row. Panels are the same whatever the number of threads, so a repeated product gives the
 * same bits. OpenBLAS runs on the calling thread: our pool shares out the panels, and two pools
 * would fight for the cores. */
#include <cblas.h>

#include "engine/kernels/compute.h"

struct panel_job {
    struct compute *c;
    const struct product *p;
};

void blas_start(void)
{
    openblas_set_num_threads(1);
}

static void run_panels(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct panel_job *job = ctx;
    const struct matrix *m = &job->p->w->matrix;
    size_t k = m->n_cols;
    float *panel = job->c->panels + (size_t)thread * BLAS_PANEL_ROWS * job->c->max_cols;
    for (size_t i = begin; i < end; i++) {
        size_t first = i * BLAS_PANEL_ROWS, left = m->n_rows - first;
        size_t rows = left < BLAS_PANEL_ROWS ? left : BLAS_PANEL_ROWS;
        for (size_t r = 0; r < rows; r++)
            tensor_decode(m->type, (const uint8_t *)m->data + (first + r) * m->row_bytes,
                          panel + r * k, k);
        if (job->p->n == 1) {
            for (size_t r = 0; r < rows; r++)
                job->p->y[first + r] = job->c->table->ops.dot(panel + r * k, job->p->x, k);
            continue;
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)job->p->n, (blasint)rows,
                    (blasint)k, 1.0f, job->p->x, (blasint)job->p->ldx, panel, (blasint)k, 0.0f,
                    job->p->y + first, (blasint)job->p->ldy);
    }
}

void blas_product(struct compute *c, const struct product *product)
{
    struct panel_job job = {c, product};
    size_t panels = (product->w->matrix.n_rows + BLAS_PANEL_ROWS - 1) / BLAS_PANEL_ROWS;
    pool_run(c->pool, panels, 1, run_panels, &job);
}
