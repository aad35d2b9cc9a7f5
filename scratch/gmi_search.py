import sys,time,torch,importlib.util,dataclasses
from leakboard.attack import contract
from pathlib import Path
from leakboard.config import Images
from leakboard.config.recipes import Generator
from leakboard.models import build
from leakboard.recipes import generator
from leakboard.threat import ReleasedModel
from torch import nn
torch.set_num_threads(1)
D='/tmp/gmi_exp'
A=contract.load(Path('/tmp/wt/gmi/baselines/gmi/attack.py'))
def net(f,name,w,extra=0):
    m=build(name,(1,32,32),10+extra,w); m.load_state_dict(torch.load(f'{D}/{f}.pt')); return m.eval().requires_grad_(False)
def prior(f,**k):
    r=Generator(images=Images(name='mnist',size=32,classes='5-9'),**{**dict(noise=100,width=16),**k}); p=generator.untrained(r); p.load_state_dict(torch.load(f'{D}/{f}.pt')); return p.eval().requires_grad_(False)
def run(target,ev,p,B,seed,classes=(0,1,2,3,4),**s):
    t=time.process_time(); acc=[];tc=[];ims=[]
    for c in classes:
        seen=ReleasedModel(model=target,loss=nn.CrossEntropyLoss(),shape=(B,1,32,32),classes=10,prior=p,query=None,access='white',target=c)
        got=contract.configure(A,s).reconstruct(seen,torch.Generator().manual_seed(seed*100+c))
        with torch.no_grad():
            acc.append(float((ev(got.images).argmax(1)==c).float().mean())); tc.append(float(target(got.images).softmax(1)[:,c].mean()))
        ims.append(got.images.detach())
    return sum(acc)/len(acc),sum(tc)/len(tc),[round(a,2) for a in acc],time.process_time()-t,torch.cat(ims)
def sheet(path,rows):
    from PIL import Image; import numpy as np
    a=np.concatenate([np.concatenate([i[0].clamp(0,1).numpy() for i in r],1) for r in rows],0); Image.fromarray((a*255).astype('uint8')).resize((a.shape[1]*2,a.shape[0]*2),0).save(path)
