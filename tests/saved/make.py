"""Write the files of this version. Files of versions that were released are never written again."""

from pathlib import Path

import numpy as np
from sklearn.model_selection import GridSearchCV

import skdyn
from skdyn.model_selection import BlockKFold
from skdyn.persistence import save
from tests.torture.models import fitted, nems, recording

HERE = Path(__file__).parent


def main():
    models, X = fitted()
    search = GridSearchCV(nems("wc-lvl-relu"), {"alpha": [0.0, 0.1]}, cv=BlockKFold(2))
    models["search"] = search.fit(*recording()).best_estimator_
    models["whole search"] = search
    results = {"X": X}
    for name, model in models.items():
        save(model, HERE / f"{skdyn.__version__}-{name.replace(' ', '-')}.skops")
        results[name.replace(" ", "-")] = (
            model.transform(X) if hasattr(model, "transform") else model.predict(X)
        )
    np.savez_compressed(HERE / f"{skdyn.__version__}.npz", **results)


if __name__ == "__main__":
    main()
