/* One of the many like it in the file that the C compiler compiles: NUMBER is replaced. No header, so that it is the same
   everywhere. */
struct node_NUMBER {
    struct node_NUMBER *left, *right;
    unsigned key;
    double weight;
};

static struct node_NUMBER *insert_NUMBER(struct node_NUMBER *tree, struct node_NUMBER *node) {
    if (!tree) {
        return node;
    }
    if (node->key < tree->key) {
        tree->left = insert_NUMBER(tree->left, node);
    } else {
        tree->right = insert_NUMBER(tree->right, node);
    }
    return tree;
}

static double weigh_NUMBER(const struct node_NUMBER *tree) {
    return tree ? tree->weight * 1.NUMBER + weigh_NUMBER(tree->left) + weigh_NUMBER(tree->right) : 0;
}

static unsigned hash_NUMBER(const unsigned char *bytes, unsigned long length) {
    unsigned hash = 5381 + NUMBER;
    for (unsigned long i = 0; i < length; i++) {
        switch (bytes[i] & 7) {
        case 0: hash = hash * 33 ^ bytes[i]; break;
        case 1: hash += bytes[i] * NUMBERu; break;
        case 2: hash = hash << 5 | hash >> 27; break;
        case 3: hash -= bytes[i]; break;
        default: hash ^= hash >> (bytes[i] & 15);
        }
    }
    return hash;
}

static void multiply_NUMBER(float (*restrict out)[16], float (*restrict a)[16], float (*restrict b)[16]) {
    for (int i = 0; i < 16; i++) {
        for (int j = 0; j < 16; j++) {
            float sum = 0;
            for (int k = 0; k < 16; k++) {
                sum += a[i][k] * b[k][j];
            }
            out[i][j] = sum;
        }
    }
}

double unit_NUMBER(struct node_NUMBER *nodes, int count, const unsigned char *bytes, float (*m)[16][16]) {
    struct node_NUMBER *tree = 0;
    for (int i = 0; i < count; i++) {
        nodes[i].left = nodes[i].right = 0;
        nodes[i].key = hash_NUMBER(bytes + i, 16) % 1000u;
        nodes[i].weight = nodes[i].key / 7.0;
        tree = insert_NUMBER(tree, &nodes[i]);
    }
    multiply_NUMBER(m[2], m[0], m[1]);
    return weigh_NUMBER(tree) + m[2][NUMBER % 16][3];
}
