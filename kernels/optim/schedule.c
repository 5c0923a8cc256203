/* Learning-rate schedules: pure functions of the step, in double. */
#include <math.h>

#include "kernels/optim/optim.h"

float kn_schedule_at(const kn_schedule *s, uint64_t step)
{
    const double pi = 3.14159265358979323846, lr = s->lr;
    if (step < s->warmup)
        return (float)(lr * ((double)step + 1) / (double)s->warmup);
    uint64_t t = step - s->warmup, span = s->total > s->warmup ? s->total - s->warmup : 0;
    double periods = s->every ? (double)t / (double)s->every : 0;
    switch (s->kind) {
    case KN_CONSTANT: break;
    case KN_COSINE:
        if (t >= span)
            return s->lr_min;
        return (float)(s->lr_min + (lr - s->lr_min) * 0.5 * (1 + cos(pi * (double)t / (double)span)));
    case KN_STEP: return (float)(lr * pow(s->factor, floor(periods)));
    case KN_EXPONENTIAL: return (float)fmax(lr * pow(s->factor, periods), s->lr_min);
    }
    return s->lr;
}
