/* cc_loads.c — what the entries of a policy weigh: sizes, costs, and the worth that follows from both.
   Declared in cc_policy.h. */
#include "cc_policy.h"

#include "cc_pages.h"

#include <math.h>

size_t cc_loads_size(const cc_policy *policy)
{
    return (size_t)policy->loads_room * sizeof(cc_load);
}

void cc_loads_free(cc_policy *policy)
{
    cc_pages_free(policy->loads, cc_loads_size(policy));
    policy->loads = NULL;
    policy->loads_room = 0;
}

/* cost / size^(3/4): between the half power, which hits more bytes, and the first, which hits more
   entries. */
static float worth_of(const cc_policy *policy, uint64_t size, double cost)
{
    if (!policy->by_size)
        return (float)cost;
    double root = sqrt((double)(size + (size == 0)));
    return (float)(cost / (root * sqrt(root)));
}

void cc_policy_set_load(cc_policy *policy, uint32_t slot, uint64_t size, double cost)
{
    if (policy->loads == NULL)
        return;
    cc_load *load = &policy->loads[slot];
    uint64_t change = size - load->size;
    policy->load += change;
    if (cc_meta_state(&policy->records[slot].meta) == CC_WINDOW)
        policy->window_load += change;
    load->size = size;
    load->cost = (float)cc_cost_within(cost);
    load->worth = worth_of(policy, size, load->cost);
}

bool cc_loads_grow(cc_policy *policy)
{
    uint32_t before = policy->loads_room;
    cc_load *grown =
        cc_pages_grow(policy->loads, cc_loads_size(policy), (size_t)policy->room * sizeof(cc_load));
    if (grown == NULL)
        return false;
    policy->loads = grown;
    policy->loads_room = policy->room;
    for (uint32_t slot = before; slot < policy->used; slot++) /* that came without */
        grown[slot] = (cc_load){.size = 0, .cost = 1, .worth = 1};
    return true;
}

bool cc_policy_keep_loads(cc_policy *policy, bool by_size)
{
    if (policy->loads_room < policy->room && !cc_loads_grow(policy))
        return false;
    policy->loaded = true;
    policy->by_size = by_size;
    policy->capacity_load = policy->load;
    for (uint32_t slot = 0; slot < policy->used; slot++) {
        cc_load *load = &policy->loads[slot];
        load->worth = worth_of(policy, load->size, load->cost);
    }
    policy->fitted = 0; /* the ghosts are measured anew */
    return true;
}
