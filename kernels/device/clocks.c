#include "kernels/device/clocks.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/device/device_internal.h"

/* kHz of one processor, 0 where the file is not there. */
static long cpufreq(int cpu, const char *what)
{
    char path[96];
    long khz = 0;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/%s", cpu, what);
    FILE *f = fopen(path, "r");
    if (!f)
        return 0;
    if (fscanf(f, "%ld", &khz) != 1)
        khz = 0;
    fclose(f);
    return khz;
}

static double mean_of_cpuinfo(void)
{
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];
    double sum = 0, mhz;
    int n = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "cpu MHz : %lf", &mhz) == 1)
            sum += mhz, n++;
    if (f)
        fclose(f);
    return n > 0 ? sum / n : 0;
}

static void host_clocks(kn_clocks *out)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN), sum = 0, most = 0;
    for (int cpu = 0; cpu < n; cpu++) {
        sum += cpufreq(cpu, "scaling_cur_freq");
        long top = cpufreq(cpu, "cpuinfo_max_freq");
        most = top > most ? top : most;
    }
    out->mhz = sum > 0 && n > 0 ? (int)(sum / n / 1000) : (int)mean_of_cpuinfo();
    out->most_mhz = (int)(most / 1000);
    if (out->mhz > 0 && out->most_mhz > 0)
        snprintf(out->text, sizeof out->text, "%d of %d MHz", out->mhz, out->most_mhz);
    else if (out->mhz > 0)
        snprintf(out->text, sizeof out->text, "%d MHz", out->mhz);
}

void kn_device_clocks(kn_device *dev, kn_clocks *out)
{
    memset(out, 0, sizeof *out);
    if (dev->vt->clocks)
        dev->vt->clocks(dev, out);
    else
        host_clocks(out);
}
