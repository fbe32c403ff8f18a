"""Test, then train, over one stream with a learner of River or Vowpal Wabbit: peers.py LEARNER STREAM PREDICTIONS.

Writes a predicted class a line (-1 where there is none) and prints the seconds of processor time that it took.
"""

import sys
import time


def river_model(name, classes):
    from river import forest, linear_model, multiclass, neighbors, preprocessing, tree

    if name == "lr":
        linear = linear_model.LogisticRegression()
        return preprocessing.StandardScaler() | (linear if classes == 2 else multiclass.OneVsRestClassifier(linear))
    return {
        "hat": lambda: tree.HoeffdingAdaptiveTreeClassifier(seed=1),
        "knn": lambda: neighbors.KNNClassifier(),
        "arf": lambda: forest.ARFClassifier(seed=1),
        "amf": lambda: forest.AMFClassifier(seed=1),
    }[name]()


def run_river(name, rows, labels):
    model = river_model(name, max(labels) + 1)
    rows = [dict(enumerate(row)) for row in rows]
    predictions = []
    started = time.thread_time()
    for row, label in zip(rows, labels):
        predicted = model.predict_one(row)
        predictions.append(-1 if predicted is None else int(predicted))
        model.learn_one(row, label)
    return predictions, time.thread_time() - started


def run_vw(name, rows, labels):
    import vowpalwabbit

    classes = max(labels) + 1
    flags = {"linear": "", "quadratic": "-q ::", "boost": "--boosting 10 --binary"}[name]
    two = classes == 2
    task = "--loss_function logistic --link identity" if two else f"--oaa {classes}"
    if name == "boost" and not two:
        raise SystemExit("only of two classes")
    model = vowpalwabbit.Workspace(f"--quiet {task if name != 'boost' else ''} {flags}")
    names = [2 * label - 1 if two else label + 1 for label in labels]
    texts = [
        f"{name} | " + " ".join(f"x{place}:{value:.7g}" for place, value in enumerate(row))
        for name, row in zip(names, rows)
    ]
    examples = [model.parse(text) for text in texts]
    predictions = []
    started = time.thread_time()
    for example in examples:
        # A lesson leaves what was predicted before it.
        model.learn(example)
        if two:
            predictions.append(int(example.get_simplelabel_prediction() > 0))
        else:
            predictions.append(example.get_multiclass_prediction() - 1)
    return predictions, time.thread_time() - started


def main():
    learner, stream, out = sys.argv[1:]
    library, name = learner.split("-", 1)
    rows, labels = [], []
    with open(stream) as lines:
        for line in lines:
            *values, label = line.split(",")
            rows.append([float(value) for value in values])
            labels.append(int(label))
    predictions, taken = (run_river if library == "river" else run_vw)(name, rows, labels)
    with open(out, "w") as file:
        file.writelines(f"{prediction}\n" for prediction in predictions)
    print(taken)


main()
